let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details.prints:not([open])")];
  for (const one of opened) one.open = true;
});
addEventListener("afterprint", () => {
  for (const one of opened) one.open = false;
});
