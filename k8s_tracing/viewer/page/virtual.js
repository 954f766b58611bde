// SPDX-License-Identifier: Apache-2.0
/**
 * A list of which only what is in sight is in the document, so that 10,000 rows scroll as 50 do.
 *
 * Most items have the same height; those that do not (a span's details) are measured when they are drawn.
 */

/** @typedef {{key: string, fixed: boolean}} Item `fixed`: it has the usual height */

const OVERSCAN = 6;
const GUESS_PX = 240;

/** @template {Item} T */
export class VirtualList {
  /**
   * @param {HTMLElement} scroller what scrolls
   * @param {HTMLElement} content inside it, and as high as all items
   * @param {number} height of a usual item, px
   * @param {(item: T, index: number) => HTMLElement} draw
   */
  constructor(scroller, content, height, draw) {
    this.scroller = scroller;
    this.content = content;
    this.height = height;
    this.draw = draw;
    /** @type {T[]} */
    this.items = [];
    /** @type {Float64Array} where each item begins; one more for the end */
    this.tops = new Float64Array(1);
    /** @type {Map<string, HTMLElement>} */
    this.drawn = new Map();
    /** @type {Map<string, number>} */
    this.measured = new Map();
    /** @type {string} an item that stays in the document though it is out of sight: what has the focus */
    this.pinned = "";
    scroller.addEventListener("scroll", () => this.update(), { passive: true });
    this.resized = new ResizeObserver((entries) => this.measure(entries));
    this.resized.observe(scroller);
  }

  /**
   * Shows these items; what was drawn of the same key stays, unless it is of a usual height.
   * @param {T[]} items
   */
  show(items) {
    this.items = items;
    const keys = new Set(items.filter((item) => !item.fixed).map((item) => item.key));
    for (const [key, node] of this.drawn) if (!keys.has(key)) this.remove(key, node);
    this.place();
    this.update();
  }

  /** @param {string} key @param {HTMLElement} node */
  remove(key, node) {
    this.resized.unobserve(node);
    node.remove();
    this.drawn.delete(key);
  }

  place() {
    const { items, height } = this;
    this.tops = new Float64Array(items.length + 1);
    for (let i = 0; i < items.length; i++) {
      this.tops[i + 1] =
        this.tops[i] + (items[i].fixed ? height : (this.measured.get(items[i].key) ?? GUESS_PX));
    }
    this.content.style.height = `${this.tops[items.length]}px`;
  }

  /** @param {ResizeObserverEntry[]} entries */
  measure(entries) {
    let changed = false;
    for (const { target } of entries) {
      const key = /** @type {HTMLElement} */ (target).dataset.key;
      const height = /** @type {HTMLElement} */ (target).offsetHeight;
      if (key === undefined || !height || this.measured.get(key) === height) continue;
      this.measured.set(key, height);
      changed = true;
    }
    if (changed) this.place();
    this.update();
  }

  /** The item at a height. @param {number} top px */
  at(top) {
    let [low, high] = [0, this.items.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.tops[middle + 1] <= top) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Draws what is in sight and takes away what is not. */
  update() {
    const top = this.scroller.scrollTop;
    const first = Math.max(this.at(top) - OVERSCAN, 0);
    const last = Math.min(this.at(top + this.scroller.clientHeight) + OVERSCAN, this.items.length - 1);
    const wanted = new Set();
    for (let i = first; i <= last; i++) wanted.add(i);
    const pinned = this.pinned ? this.items.findIndex((item) => item.key === this.pinned) : -1;
    if (pinned >= 0) wanted.add(pinned);
    const keys = new Set([...wanted].map((i) => this.items[i].key));
    for (const [key, node] of this.drawn) if (!keys.has(key)) this.remove(key, node);
    /** @type {ChildNode | null} */
    let next = this.content.firstChild;
    for (const i of [...wanted].sort((a, b) => a - b)) {
      const item = this.items[i];
      let node = this.drawn.get(item.key);
      if (!node) {
        node = this.draw(item, i);
        node.dataset.key = item.key;
        this.drawn.set(item.key, node);
        if (!item.fixed) this.resized.observe(node);
      }
      node.style.transform = `translateY(${this.tops[i]}px)`;
      // In the document they are in order, too: a screen reader and Tab go by that.
      if (node === next) next = next.nextSibling;
      else this.content.insertBefore(node, next);
    }
  }

  /** Brings an item into sight, near the middle if it was not. @param {number} index */
  reveal(index) {
    const { scroller, tops } = this;
    const [top, bottom] = [tops[index], tops[index + 1]];
    if (top >= scroller.scrollTop && bottom <= scroller.scrollTop + scroller.clientHeight) return;
    scroller.scrollTop = Math.max(top - scroller.clientHeight / 3, 0);
    this.update();
  }

  end() {
    this.resized.disconnect();
  }
}
