// SPDX-License-Identifier: Apache-2.0
/** The keyboard's shortcuts, which are Jaeger's, and in the rows those of a tree. */

import { el } from "./dom.js";

/** @type {[string, [string[], string][]][]} */
const SHORTCUTS = [
  [
    "Trace",
    [
      [["/", "Ctrl+B"], "find in the trace"],
      [["f"], "next match; without one, find"],
      [["b"], "previous match"],
      [["Esc"], "clear what is sought"],
      [["e"], "next error"],
      [["["], "expand all"],
      [["]"], "collapse all"],
      [["o"], "expand one level"],
      [["p"], "collapse one level"],
      [["s", "w"], "a page down, up"],
      [["c"], "critical path"],
    ],
  ],
  [
    "Rows (when one has the focus)",
    [
      [["↑", "↓"], "previous, next row"],
      [["→"], "expand, then to the first child"],
      [["←"], "collapse, then to the parent"],
      [["Enter"], "details"],
      [["Home", "End"], "first, last row"],
    ],
  ],
  [
    "Time (elsewhere on the page)",
    [
      [["←", "→", "a", "d"], "move; with Shift further"],
      [["↑", "↓"], "closer, wider; with Shift more"],
      [["0"], "the whole trace"],
    ],
  ],
];

export function showHelp() {
  if (document.querySelector("dialog.help")) return;
  const dialog = el(
    "dialog",
    { className: "help", "aria-label": "Keyboard shortcuts" },
    el("h2", {}, "Keyboard shortcuts"),
    ...SHORTCUTS.map(([title, rows]) =>
      el(
        "section",
        {},
        el("h3", {}, title),
        el(
          "dl",
          {},
          ...rows.flatMap(([keys, text]) => [
            el("dt", {}, ...keys.map((key) => el("kbd", {}, key))),
            el("dd", {}, text),
          ]),
        ),
      ),
    ),
    el("button", { type: "button", onClick: () => dialog.close() }, "Close"),
  );
  dialog.addEventListener("close", () => dialog.remove());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  document.body.append(dialog);
  dialog.showModal();
}
