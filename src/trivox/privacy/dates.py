"""Dates: taken out, moved into the past by the same days for all of a patient, or left."""

import re
from datetime import date, timedelta

from trivox.config.choices import DateRule
from trivox.privacy.profile import STAND_INS

DATE = re.compile(r"[12]\d{7}")
TIME = re.compile(r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?")
MOMENT = re.compile(r"([12]\d{7})(\d{0,6}(\.\d{1,6})?)([+-]\d{4})?")


def cleaned_date(keyword: str, text: str, rule: DateRule, days: int) -> str:
    """A date `YYYYMMDD` (PS3.5 6.2, DA) after the rule; blank where there is none, or
    what stands for it where one is wanted.
    """
    whole = DATE.fullmatch(text.strip())
    moved = None
    if whole is not None and rule != "remove":
        moved = _moved(text.strip(), rule, days)
    return STAND_INS.get(keyword, "") if moved is None else moved


def cleaned_time(keyword: str, text: str, rule: DateRule) -> str:
    """A time of day (TM); times stay as they are where dates stay or are moved."""
    stays = rule != "remove" and TIME.fullmatch(text.strip())
    return text.strip() if stays else STAND_INS.get(keyword, "")


def cleaned_moment(keyword: str, text: str, rule: DateRule, days: int) -> str:
    """A date with its time (DT)."""
    parts = MOMENT.fullmatch(text.strip())
    moved = None
    if parts is not None and rule != "remove":
        moved = _moved(parts[1], rule, days)
    if parts is None or moved is None:
        return STAND_INS.get(keyword, "")
    return moved + (parts[2] or "") + (parts[4] or "")


def _moved(text: str, rule: DateRule, days: int) -> str | None:
    """The date, or that so many days before; None for a day that no calendar has."""
    try:
        day = date(int(text[:4]), int(text[4:6]), int(text[6:]))
    except ValueError:
        return None
    if rule == "keep":
        return text
    earlier = day - timedelta(days=days)
    return earlier.strftime("%Y%m%d")
