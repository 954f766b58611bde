// SPDX-License-Identifier: Apache-2.0
// Not a module: it runs before the page is drawn, so that a dark page does not begin white.
"use strict";
(() => {
  const chosen = localStorage.getItem("theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
})();
