"""Options of what energy and time cost."""

from typing import Annotated

from trivox.cli.options import option

Watts = Annotated[float | None, option("train", "watts_per_core")]
PricePerHour = Annotated[float | None, option("train", "price_per_hour")]
PricePerKwh = Annotated[float | None, option("train", "price_per_kwh")]
