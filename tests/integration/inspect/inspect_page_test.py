"""The page that `pyramidkv inspect` writes, opened in a headless browser: what is drawn is compared with the reply it was made of."""
import base64
import json
import os
import shutil
import subprocess
import tempfile
import unittest

from browser import Browser

CLIENT = os.path.join(os.environ["PKV_BIN"], "pyramidkv")
LENGTH, LAYERS, HEADS, SINKS, WINDOW = 2000, 8, 2, 4, 8
HOSTILE = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>&amp;\u2028\"\\"
PLOT, INK = [0xF1, 0xF4, 0xF8], [0x0B, 0x3D, 0x91]  # of the light style sheet: nothing kept, all kept


def kept_positions(layer, head):
    """Sinks, a window, and positions between them: 160 in the lowest layer, 20 fewer in every further one."""
    between = 160 - 20 * layer - SINKS - WINDOW
    return [*range(SINKS), *(100 + 11 * i + 3 * head + layer for i in range(between)), *range(LENGTH - WINDOW, LENGTH)]


def layer_report(layer, positions_of_heads):
    counts = [len(positions) for positions in positions_of_heads]
    return {"layer": layer, "budgetTokens": max(counts), "keptMin": min(counts), "keptMean": sum(counts) / len(counts), "keptMax": max(counts),
            "recall": {"mean": 0.9, "min": 0.8},
            "heads": [{"kvHead": head, "positions": positions} for head, positions in enumerate(positions_of_heads)]}


def pyramid_reply():
    return {"model": HOSTILE, "choices": [{"text": HOSTILE, "finishReason": "FINISH_REASON_STOP"}],
            "usage": {"promptTokens": LENGTH, "completionTokens": 5},
            "cache": {"policyName": HOSTILE, "effectivePolicy": {"preset": HOSTILE}, "budgetTokens": 90, "compressed": True,
                      "fullBytes": "4096000", "savedBytes": "3686400", "recall": {"mean": 0.9, "min": 0.8},
                      "layers": [layer_report(layer, [kept_positions(layer, head) for head in range(HEADS)]) for layer in range(LAYERS)]}}


def echoed_reply():
    """A prompt of 40 tokens repeated in front of the answer, which is how token texts travel."""
    words = [f"w{i} " for i in range(39)] + ["<b>bold</b>"]
    answer = ["an ", "answer"]
    logprobs = [{"tokenId": i + 1, "token": base64.b64encode(word.encode()).decode(), "logprob": -1} for i, word in enumerate(words + answer)]
    return {"choices": [{"text": "".join(words + answer), "logprobs": logprobs}], "usage": {"promptTokens": 40, "completionTokens": 2},
            "cache": {"policyName": "snapkv", "compressed": True, "layers": [layer_report(0, [[0, 10, 39]])]}}


def run_client(*words):
    return subprocess.run([CLIENT, *words], capture_output=True, text=True)


class InspectPageTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp()
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        cls.browser = Browser()
        cls.addClassCleanup(cls.browser.close)

    def write_page(self, reply, *options):
        source, page = os.path.join(self.folder, "reply.json"), os.path.join(self.folder, "page.html")
        with open(source, "w", encoding="utf-8") as file:
            json.dump(reply, file)
        done = run_client("inspect", "--from-reply", source, "--output", page, *options)
        self.assertEqual(done.returncode, 0, done.stderr)
        return page

    def open(self, reply, *options, **view):
        page = self.write_page(reply, *options)
        self.browser.open(page, **view)
        self.addCleanup(lambda: self.assertEqual(self.browser.problems, []))
        return page

    def pixels(self):
        """The heat map, lane by lane from the highest layer to the lowest: a list of colours per lane."""
        drawn = self.browser.evaluate("""(() => {
            const { width, height } = document.getElementById('heat'), copy = new OffscreenCanvas(width, height);
            const context = copy.getContext('2d', { willReadFrequently: true });
            context.drawImage(document.getElementById('heat'), 0, 0);
            return { width, height, bytes: Array.from(context.getImageData(0, 0, width, height).data) };
        })()""")
        width, data, lanes, layer = drawn["width"], drawn["bytes"], [], []
        for y in range(drawn["height"] + 1):
            row = data[4 * width * y:4 * width * (y + 1)]
            if row and row[3]:
                layer.append([row[i:i + 3] for i in range(0, len(row), 4)])
                continue
            self.assertEqual(len(layer) % HEADS, 0)  # a transparent row between layers, or the end: the layer is complete
            tall = len(layer) // HEADS
            for head in range(HEADS):
                self.assertTrue(all(line == layer[head * tall] for line in layer[head * tall:(head + 1) * tall]))
                lanes.append(layer[head * tall])
            layer = []
        return lanes

    def test_every_kept_position_and_no_other_is_drawn(self):
        self.open(pyramid_reply())
        lanes = self.pixels()
        self.assertEqual(len(lanes), LAYERS * HEADS)
        for row, lane in enumerate(lanes):
            layer, head = LAYERS - 1 - row // HEADS, row % HEADS
            kept, width = set(kept_positions(layer, head)), len(lane)
            self.assertGreater(width, 400)
            for column, colour in enumerate(lane):
                begin = column * LENGTH // width
                inside = range(begin, max(begin + 1, (column + 1) * LENGTH // width))
                count = sum(position in kept for position in inside)
                expected = PLOT if count == 0 else INK if count == len(inside) else None
                if expected:
                    self.assertEqual(colour, expected, (layer, head, column))
                else:
                    self.assertTrue(all(min(p, i) < c < max(p, i) for p, i, c in zip(PLOT, INK, colour)), (layer, head, column))
            self.assertEqual(lane[0], INK)
            self.assertEqual(lane[-1], INK)
        ink = [sum(colour != PLOT for colour in lane) for lane in lanes]
        of_layers = [sum(ink[row:row + HEADS]) for row in range(0, len(ink), HEADS)]  # from the highest layer down
        self.assertEqual(of_layers, sorted(set(of_layers)))

    def test_bars_are_a_pyramid_on_its_base(self):
        self.open(pyramid_reply())
        bars = self.browser.evaluate("""Array.from(document.querySelectorAll('#axes .bar'), (bar) => {
            const box = bar.getBoundingClientRect();
            return [Number(bar.dataset.layer), box.top, box.width];
        })""")
        self.assertEqual(sorted(layer for layer, _, _ in bars), list(range(LAYERS)))
        bars.sort()
        for (_, low_top, low_width), (_, high_top, high_width) in zip(bars, bars[1:]):
            self.assertGreater(low_top, high_top)
            self.assertGreater(low_width, high_width)
        self.assertAlmostEqual(bars[-1][2] / bars[0][2], 20 / 160, delta=0.01)

    def test_the_tables_say_what_is_drawn(self):
        self.open(pyramid_reply())
        rows = self.browser.evaluate("Array.from(document.querySelectorAll('#layers tbody tr'), (row) => Array.from(row.cells, (cell) => cell.textContent))")
        self.assertEqual(rows, [[str(layer), *[str(160 - 20 * layer)] * 4, "90.0 %", "80.0 %"] for layer in reversed(range(LAYERS))])
        summary = self.browser.evaluate("document.getElementById('summary').textContent")
        for figure in ("2,000 tokens", "1,440 entries of 32,000", "4.5 %", "160 per KV head in layer 0", "20 in layer 7"):
            self.assertIn(figure, summary)
        figures = dict(self.browser.evaluate("Array.from(document.querySelectorAll('#figures tr'), (row) => Array.from(row.cells, (cell) => cell.textContent))"))
        self.assertEqual(figures["prompt tokens"], "2000")
        self.assertEqual(figures["saved share"], "90.0 %")

    def test_hostile_strings_stay_text_and_nothing_is_fetched(self):
        page = self.open(pyramid_reply(), "--question", HOSTILE)
        self.assertEqual(self.browser.evaluate("document.getElementById('answer').textContent"), HOSTILE)
        self.assertEqual(self.browser.evaluate("document.getElementById('question').textContent"), HOSTILE)
        self.assertIn(HOSTILE, self.browser.evaluate("document.getElementById('policy').textContent"))
        self.assertIn(HOSTILE, self.browser.evaluate("document.title"))
        self.assertEqual(self.browser.evaluate("[typeof window.hacked, document.scripts.length, document.images.length]"), ["undefined", 2, 0])
        self.assertEqual(self.browser.requests, ["file://" + page])

    def test_the_page_itself_forbids_requests(self):
        self.open(pyramid_reply())
        self.assertEqual(self.browser.evaluate("fetch('data:text/plain,x').then(() => 'allowed', () => 'refused')"), "refused")
        self.assertTrue(any("Content Security Policy" in problem for problem in self.browser.problems))
        self.browser.problems.clear()

    def test_dark_and_back(self):
        self.open(pyramid_reply(), dark=True)
        dark = self.pixels()[0]
        self.assertGreater(min(dark[0]), max(dark[50]))  # kept is brighter than evicted
        self.browser.dark(False)
        self.browser.evaluate("new Promise(requestAnimationFrame)")
        self.assertEqual(self.pixels()[0][0], INK)

    def test_a_narrow_window_has_everything_in_it(self):
        self.open(pyramid_reply(), width=420)
        self.assertLessEqual(self.browser.evaluate("document.documentElement.scrollWidth"), 420)
        self.assertEqual(len(self.pixels()), LAYERS * HEADS)

    def tip(self):
        return self.browser.evaluate("document.getElementById('tip').hidden ? [] : Array.from(document.querySelectorAll('#tip p'), (p) => p.textContent)")

    def test_mouse_and_keys_name_layer_head_and_positions(self):
        self.open(pyramid_reply())
        self.assertEqual(self.tip(), [])
        left, bottom = self.browser.evaluate("(() => { const box = document.getElementById('heat').getBoundingClientRect(); return [box.left, box.bottom]; })()")
        self.browser.move_mouse(left + 0.5, bottom - 1)
        lines = self.tip()
        self.assertEqual(lines[0], "Layer 0, KV head 1")
        self.assertRegex(lines[1], r"^Positions 0 to (\d): (\d) of \2 kept$")
        self.assertEqual(lines[2], "This head kept 160 of 2,000 (8.0 %)")
        self.browser.move_mouse(left - 20, bottom - 1)
        self.assertEqual(self.tip(), [])
        self.browser.evaluate("document.getElementById('heat').focus()")
        self.browser.press("ArrowDown")
        self.assertEqual(self.tip()[0], "Layer 7, KV head 0")
        self.browser.press("ArrowDown")
        self.browser.press("ArrowDown")
        self.assertEqual(self.tip()[0], "Layer 6, KV head 0")
        self.browser.press("Escape")
        self.assertEqual(self.tip(), [])

    def test_token_texts_where_the_reply_has_them(self):
        self.open(echoed_reply())
        self.assertEqual(self.browser.evaluate("document.getElementById('answer').textContent"), "an answer")
        self.browser.evaluate("document.getElementById('heat').focus()")
        self.browser.press("ArrowRight")
        self.assertEqual(self.tip()[1:], ["Position 0: kept", "This head kept 3 of 40 (7.5 %)", "w0 w1 w2 w3 w4 w5 w6 w7 w8 "])
        for _ in range(45):
            self.browser.press("ArrowRight")
        self.assertTrue(self.tip()[3].endswith("<b>bold</b>"))
        self.assertEqual(self.browser.evaluate("Array.from(document.querySelectorAll('#tip mark'), (mark) => mark.textContent)"), ["<b>bold</b>"])
        self.assertEqual(self.browser.evaluate("document.querySelectorAll('b').length"), 0)

    def test_positions_at_the_end_of_the_answer(self):
        self.open(pyramid_reply())
        self.assertTrue(self.browser.evaluate("document.getElementById('when').hidden"))
        reply = pyramid_reply()
        reply["cache"]["logicalTokens"] = LENGTH + 5
        for layer in reply["cache"]["layers"]:
            for head in layer["heads"]:  # nothing of the middle is left, the answer is there
                head["finalPositions"] = [*range(SINKS), *range(LENGTH, LENGTH + 5)]
        self.open(reply)
        before = self.pixels()
        self.browser.evaluate("document.getElementById('final').click()")
        summary = self.browser.evaluate("document.getElementById('summary').textContent")
        self.assertIn("2,005 tokens", summary)
        self.assertIn("9 per KV head in layer 0, 9 in layer 7", summary)
        for lane in self.pixels():
            kept = [column for column, colour in enumerate(lane) if colour != PLOT]
            self.assertLess(max(kept[:len(kept) // 2]), 5)
            self.assertEqual(kept[-1], len(lane) - 1)
            self.assertLessEqual(len(kept), 9)
        self.browser.evaluate("document.getElementById('cut').click()")
        self.assertEqual(self.pixels(), before)

    def test_a_long_prompt_stays_a_small_page(self):
        reply = pyramid_reply()
        reply["usage"]["promptTokens"] = 8000
        reply["cache"]["layers"] = [layer_report(layer, [list(range(head, 8000, 8)) for head in range(3)]) for layer in range(30)]
        page = self.open(reply)
        self.assertLess(os.path.getsize(page), 450_000)
        self.assertEqual(self.browser.evaluate("document.querySelectorAll('#axes .bar').length"), 30)

    def test_wrong_usage_is_exit_code_2(self):
        bare = pyramid_reply()
        del bare["cache"]["layers"]
        source = os.path.join(self.folder, "bare.json")
        with open(source, "w", encoding="utf-8") as file:
            json.dump(bare, file)
        page = os.path.join(self.folder, "none.html")
        refused = run_client("inspect", "--from-reply", source, "--output", page)
        self.assertEqual(refused.returncode, 2)
        self.assertIn("no kept positions", refused.stderr)
        self.assertFalse(os.path.exists(page))
        self.assertEqual(run_client("inspect", "--from-reply", source).returncode, 2)
        self.assertEqual(run_client("inspect", "--from-reply", source, "--output", page, "prompt").returncode, 2)
        self.assertEqual(run_client("inspect", "--from-reply", os.path.join(self.folder, "absent"), "--output", page).returncode, 2)


if __name__ == "__main__":
    unittest.main()
