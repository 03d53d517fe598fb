/* Before anything is drawn: dark or light as it was chosen; by the system's setting unless. */
const chosen = sessionStorage.getItem("theme");
if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
