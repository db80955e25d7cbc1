"""The page that `pyramidkv inspect` writes, opened in a headless browser: what is drawn is compared with the reply it was made of."""
import base64
import json
import math
import os
import shutil
import subprocess
import tempfile
import time
import unittest

from browser import Browser

CLIENT = os.path.join(os.environ["PKV_BIN"], "pyramidkv")
LENGTH, LAYERS, HEADS, SINKS, WINDOW = 2000, 8, 2, 4, 8
HOSTILE = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>&amp;\u2028\"\\"
SIZES = (1400, 400)
PLOT, INK = [0xEE, 0xF2, 0xF7], [0x0B, 0x3D, 0x91]  # of the light style sheet: nothing kept, all kept


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


def prompt_reply(words, kept, name="snapkv", answer="an answer"):
    """A reply that repeats its prompt of `words`, texts or bytes; `kept`: a set of positions for every head of every layer."""
    tokens = [word if isinstance(word, bytes) else word.encode() for word in words]
    logprobs = [{"tokenId": i, "token": base64.b64encode(token).decode()} for i, token in enumerate([*tokens, answer.encode()])]
    text = b"".join(tokens).decode() + answer
    return {"choices": [{"text": text, "logprobs": logprobs}], "usage": {"promptTokens": len(words), "completionTokens": 1},
            "cache": {"policyName": name, "budgetTokens": 1, "compressed": True,
                      "layers": [layer_report(layer, [sorted(positions) for positions in heads]) for layer, heads in enumerate(kept)]}}


def run_client(*words):
    return subprocess.run([CLIENT, *words], capture_output=True, text=True)


class InspectPageTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp()
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        cls.browser = Browser()
        cls.addClassCleanup(cls.browser.close)

    def write_page(self, replies, *options):
        page, sources = os.path.join(self.folder, "page.html"), []
        for i, reply in enumerate(replies):
            source = os.path.join(self.folder, f"reply{i}.json")
            with open(source, "w", encoding="utf-8") as file:
                json.dump(reply, file)
            sources += ["--from-reply", source]
        done = run_client("inspect", *sources, "--output", page, *options)
        self.assertEqual(done.returncode, 0, done.stderr)
        return page

    def open(self, replies, *options, **view):
        page = self.write_page(replies if isinstance(replies, list) else [replies], *options)
        self.browser.open(page, **view)
        self.addCleanup(lambda: self.assertEqual(self.browser.problems, []))
        return page

    def pixels(self):
        """The heat map, lane by lane from the highest layer to the lowest: a list of colours per lane."""
        drawn = self.browser.evaluate("""(() => {
            const { width, height } = document.querySelector('.heat'), copy = new OffscreenCanvas(width, height);
            const context = copy.getContext('2d', { willReadFrequently: true });
            context.drawImage(document.querySelector('.heat'), 0, 0);
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

    def wait_for_ink(self):
        """Until the map is drawn in light colours: a change of the system's comes some time after it was asked for."""
        deadline = time.monotonic() + 30
        while self.pixels()[0][0] != INK and time.monotonic() < deadline:
            time.sleep(0.05)
        self.assertEqual(self.pixels()[0][0], INK)

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
        bars = self.browser.evaluate("""Array.from(document.querySelectorAll('.axes .bar'), (bar) => {
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
        rows = self.browser.evaluate("Array.from(document.querySelectorAll('.layers tbody tr'), (row) => Array.from(row.cells, (cell) => cell.textContent))")
        self.assertEqual(rows, [[str(layer), *[str(160 - 20 * layer)] * 4, "90.0 %", "80.0 %"] for layer in reversed(range(LAYERS))])
        summary = self.browser.evaluate("document.querySelector('.summary').textContent")
        for figure in ("2,000 tokens", "1,440 entries of 32,000", "4.5 %", "160 per KV head in layer 0", "20 in layer 7"):
            self.assertIn(figure, summary)
        figures = dict(self.browser.evaluate("Array.from(document.querySelectorAll('#figures tr'), (row) => Array.from(row.cells, (cell) => cell.textContent))"))
        self.assertEqual(figures["prompt tokens"], "2000")
        self.assertEqual(figures["saved share"], "90.0 %")

    def test_hostile_strings_stay_text_and_nothing_is_fetched(self):
        page = self.open(pyramid_reply(), "--question", HOSTILE)
        self.assertEqual(self.browser.evaluate("document.querySelector('.answer').textContent"), HOSTILE)
        self.assertEqual(self.browser.evaluate("document.getElementById('question').textContent"), HOSTILE)
        self.assertIn(HOSTILE, self.browser.evaluate("document.querySelector('.policy').textContent"))
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
        self.wait_for_ink()

    def test_a_narrow_window_has_everything_in_it(self):
        self.open(pyramid_reply(), width=420)
        self.assertLessEqual(self.browser.evaluate("document.documentElement.scrollWidth"), 420)
        self.assertEqual(len(self.pixels()), LAYERS * HEADS)

    def tip(self):
        return self.browser.evaluate("document.querySelector('.tip').hidden ? [] : Array.from(document.querySelectorAll('.tip p'), (p) => p.textContent)")

    def test_mouse_and_keys_name_layer_head_and_positions(self):
        self.open(pyramid_reply())
        self.assertEqual(self.tip(), [])
        left, bottom = self.browser.evaluate("(() => { const box = document.querySelector('.heat').getBoundingClientRect(); return [box.left, box.bottom]; })()")
        self.browser.move_mouse(left + 0.5, bottom - 1)
        lines = self.tip()
        self.assertEqual(lines[0], "Layer 0, KV head 1")
        self.assertRegex(lines[1], r"^Positions 0 to (\d): (\d) of \2 kept$")
        self.assertEqual(lines[2], "This head kept 160 of 2,000 (8.0 %)")
        self.browser.move_mouse(left - 20, bottom - 1)
        self.assertEqual(self.tip(), [])
        self.browser.evaluate("document.querySelector('.heat').focus()")
        self.browser.press("ArrowDown")
        self.assertEqual(self.tip()[0], "Layer 7, KV head 0")
        self.browser.press("ArrowDown")
        self.browser.press("ArrowDown")
        self.assertEqual(self.tip()[0], "Layer 6, KV head 0")
        self.browser.press("Escape")
        self.assertEqual(self.tip(), [])

    def test_token_texts_where_the_reply_has_them(self):
        self.open(echoed_reply())
        self.assertEqual(self.browser.evaluate("document.querySelector('.answer').textContent"), "an answer")
        self.browser.evaluate("document.querySelector('.heat').focus()")
        self.browser.press("ArrowRight")
        self.assertEqual(self.tip()[1:], ["Position 0: kept", "This head kept 3 of 40 (7.5 %)", "w0 w1 w2 w3 w4 w5 w6 w7 w8 "])
        for _ in range(45):
            self.browser.press("ArrowRight")
        self.assertTrue(self.tip()[3].endswith("<b>bold</b>"))
        self.assertEqual(self.browser.evaluate("Array.from(document.querySelectorAll('.tip mark'), (mark) => mark.textContent)"), ["<b>bold</b>"])
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
        summary = self.browser.evaluate("document.querySelector('.summary').textContent")
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
        self.assertEqual(self.browser.evaluate("document.querySelectorAll('.axes .bar').length"), 30)

    def texts(self):
        """For every policy the pieces of the prompt: text, shade of 0 to 10."""
        return self.browser.evaluate("""Array.from(document.querySelectorAll('.text'), (pane) => Array.from(pane.querySelectorAll('.t'),
            (span) => [span.textContent, Number(span.className.match(/\\bk(\\d+)/)[1])]))""")

    def test_the_prompt_is_shaded_by_how_many_heads_kept_each_token(self):
        words = [f"w{i} " for i in range(40)]
        reply = prompt_reply(words, [[{i for i in range(40) if i % 4 <= head + layer} for head in range(2)] for layer in range(3)])
        self.open(reply)
        (pane,) = self.texts()
        self.assertEqual("".join(text for text, _ in pane), "".join(words))
        shares = [sum(i % 4 <= head + layer for head in range(2) for layer in range(3)) / 6 for i in range(40)]
        for (_, shade), share in zip(pane, shares):
            self.assertEqual(shade, 10 if share == 1 else min(9, math.ceil(share * 9 - 1e-9)), share)
        self.browser.evaluate("(() => { const select = document.getElementById('shade'); select.value = '0'; select.dispatchEvent(new Event('change')); })()")
        self.assertEqual([shade for _, shade in self.texts()[0]], [[10, 5, 0, 0][i % 4] for i in range(40)])

    def test_two_policies_side_by_side(self):
        words = [f"word{i} " for i in range(400)]
        replies = [prompt_reply(words, [[{0}, {0}]] * 3, name="first"), prompt_reply(words, [[set(range(200, 400))] * 2] * 3, name="second")]
        replies[1]["cache"]["effectivePolicy"] = {"preset": "with a description of several lines, " * 6}
        replies[1]["cache"] |= {"compressed": False, "notCompressedReason": "a note above one of the maps"}
        self.open(replies, width=1400)
        first, second = self.texts()
        self.assertEqual([text for text, _ in first], [text for text, _ in second])
        self.assertEqual([shade for _, shade in first], [10] + [0] * 399)
        self.assertEqual([shade for _, shade in second], [0] * 200 + [10] * 200)
        boxes = "Array.from(document.querySelectorAll('%s'), (part) => { const box = part.getBoundingClientRect(); return [box.left, box.top, box.width, box.height]; })"
        for part in (".view", ".heat", ".text"):
            (left, top, wide, tall), (other_left, other_top, other_wide, other_tall) = self.browser.evaluate(boxes % part)
            self.assertEqual((top, wide, tall), (other_top, other_wide, other_tall), part)
            self.assertGreaterEqual(other_left, left + wide, part)
        self.browser.evaluate("document.querySelector('.text').scrollTop = 60")
        self.browser.evaluate("new Promise((done) => setTimeout(done, 200))")
        self.assertEqual(self.browser.evaluate("document.querySelectorAll('.text')[1].scrollTop"), 60)
        self.assertEqual(self.browser.evaluate("Array.from(document.querySelectorAll('.view > .title'), (title) => title.textContent)"), ["first 1", "second"])
        self.browser.evaluate("point(390, true)")
        for i in range(2):
            self.assertTrue(self.browser.evaluate(f"""(() => {{
                const pane = document.querySelectorAll('.text')[{i}].getBoundingClientRect(), word = document.querySelectorAll('.here')[{i}].getBoundingClientRect();
                return word.top >= pane.top && word.bottom <= pane.bottom;
            }})()"""))
        self.browser.evaluate("point(null)")
        self.browser.evaluate("document.querySelectorAll('.text')[1].focus()")
        for _ in range(3):
            self.browser.press("ArrowRight")
        self.assertEqual(self.browser.evaluate("document.getElementById('readout').textContent"),
                         "Position 2, “word2 ”: kept by 0 of 6 heads under first 1, 0 of 6 heads under second.")
        self.assertEqual(self.browser.evaluate("Array.from(document.querySelectorAll('.here'), (span) => span.textContent)"), ["word2 "] * 2)
        self.assertEqual(self.browser.evaluate("document.querySelectorAll('.column:not([hidden])').length"), 2)
        self.browser.press("Escape")
        self.assertEqual(self.browser.evaluate("document.querySelectorAll('.here, .column:not([hidden])').length"), 0)

    def test_pointing_at_a_map_marks_the_word_in_the_text(self):
        self.open(prompt_reply([f"w{i} " for i in range(40)], [[{0}]]))
        self.browser.evaluate("document.querySelector('.heat').focus()")
        self.browser.press("ArrowRight")
        self.browser.press("ArrowRight")
        self.assertEqual(self.browser.evaluate("document.querySelector('.here').textContent"), "w1 ")
        self.assertEqual(self.browser.evaluate("document.querySelector('.column').hidden"), False)

    def test_a_hostile_prompt_stays_text(self):
        words = [HOSTILE, "\u202e", "abc", "\u0000\u001b[2J", "\u2066", "\n\n", "\u0085", "<b>", "A" * 3000, "\u0301" * 500, " end"]
        self.open(prompt_reply(words, [[{0, 3}]], answer="\u202eno\u0007"), width=400)
        (pane,) = self.texts()
        self.assertEqual([text for text, _ in pane], [HOSTILE, "[U+202E]", "abc", "\u2400\u241b[2J", "[U+2066]", "\n\n", "[U+0085]", "<b>", "A" * 3000,
                                                      "\u0301" * 500, " end"])
        self.assertEqual(self.browser.evaluate("document.querySelector('.answer').textContent"), "[U+202E]no\u2407")
        self.assertEqual(self.browser.evaluate("[typeof window.hacked, document.scripts.length, document.images.length, document.querySelectorAll('b').length]"),
                         ["undefined", 2, 0, 0])
        self.assertLessEqual(self.browser.evaluate("document.documentElement.scrollWidth"), 400)

    def test_characters_of_several_tokens_are_one_piece(self):
        self.open(prompt_reply([b"a", b"\xf0\x9f", b"\x8e\x89", b"z"], [[{1}, {1, 2}]]))
        (pane,) = self.texts()
        self.assertEqual(pane, [["a", 0], ["\U0001f389", 7], ["z", 0]])  # three of four times kept

    def test_everything_fits_and_can_be_read_in_every_size_and_colour(self):
        words = [f"word{i} " for i in range(11)]
        kept = [[{i for i in range(11) if i > layer}] for layer in range(10)]
        for width in SIZES:
            for dark in (False, True):
                with self.subTest(width=width, dark=dark):
                    self.open([prompt_reply(words, kept, name="one"), prompt_reply(words, kept, name="two")], "--question", "why?", width=width, dark=dark)
                    self.browser.evaluate("document.querySelector('details').open = true")
                    self.assertLessEqual(self.browser.evaluate("document.documentElement.scrollWidth"), width)
                    self.assertEqual(sorted({shade for _, shade in self.texts()[0]}), list(range(11)))
                    for part, ratio in self.contrasts():
                        self.assertGreaterEqual(ratio, 4.5, part)
                    for part in ("h1", ".view > .title", ".answer", "#question", ".summary", ".tiles dd", "#figures tbody td"):
                        self.assertNotEqual(self.browser.evaluate(f"document.querySelector({json.dumps(part)}).textContent"), "", part)

    def contrasts(self):
        """Of every element with text of its own: what it is, and the ratio of the brightness of text and background."""
        return self.browser.evaluate("""(() => {
            const context = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
            const over = (colours) => {  // painted one over the other
                for (const colour of colours) { context.fillStyle = colour; context.fillRect(0, 0, 1, 1); }
                return Array.from(context.getImageData(0, 0, 1, 1).data).slice(0, 3);
            };
            const light = (rgb) => rgb.map((c) => c / 255).map((c) => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
                .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
            const found = [];
            for (const part of document.body.querySelectorAll('*')) {
                const own = Array.from(part.childNodes).some((node) => node.nodeType === Node.TEXT_NODE && node.textContent.trim());
                if (!own || part.checkVisibility && !part.checkVisibility() || part.closest('noscript, script, style, template')) continue;
                const layers = [];
                for (let at = part; at; at = at.parentElement) layers.unshift(getComputedStyle(at).backgroundColor);
                const below = over(['white', ...layers]), style = getComputedStyle(part), svg = part.ownerSVGElement;
                const above = over([`rgb(${below})`, svg ? style.fill : style.color]);
                const [high, low] = [light(above), light(below)].sort((a, b) => b - a);
                found.push([`${part.tagName} ${part.className.baseVal ?? part.className} ${part.textContent.slice(0, 20)}`, (high + 0.05) / (low + 0.05)]);
            }
            return found;
        })()""")

    def test_the_reader_chooses_the_colours(self):
        self.open(pyramid_reply())
        page = "getComputedStyle(document.body).backgroundColor"
        light = self.browser.evaluate(page)
        self.browser.evaluate("document.getElementById('theme').focus()")
        self.assertEqual(self.browser.evaluate("document.getElementById('theme').textContent"), "Dark colours")
        self.browser.evaluate("document.activeElement.click()")
        self.assertNotEqual(self.browser.evaluate(page), light)
        dark = self.pixels()[0]
        self.assertGreater(min(dark[0]), max(dark[50]))
        self.browser.dark(True)
        self.browser.evaluate("document.getElementById('theme').click()")
        self.wait_for_ink()
        self.assertEqual(self.browser.evaluate(page), light)

    def test_every_control_is_reached_with_the_tab_key(self):
        self.open([prompt_reply(["a ", "b "], [[{0}]], name="one"), prompt_reply(["a ", "b "], [[{1}]], name="two")])
        reached = []
        for _ in range(12):
            self.browser.call("Input.dispatchKeyEvent", type="rawKeyDown", key="Tab", windowsVirtualKeyCode=9)
            self.browser.call("Input.dispatchKeyEvent", type="keyUp", key="Tab", windowsVirtualKeyCode=9)
            reached.append(self.browser.evaluate("(document.activeElement.id || document.activeElement.className || document.activeElement.tagName).trim()"))
        for control in ("theme", "heat", "shade", "SUMMARY"):
            self.assertIn(control, reached)
        self.assertEqual([sum(name.startswith(part) for name in reached[:8]) for part in ("heat", "text")], [2, 2])

    def test_a_long_prompt_with_its_text_stays_small_and_quick(self):
        words = [f"tok{i % 977} " for i in range(8000)]
        kept = [[set(range(head, 8000, 60)) for head in range(3)]] * 30
        page = self.open([prompt_reply(words, kept, name="one"), prompt_reply(words, kept, name="two")])
        self.assertLess(os.path.getsize(page), 500_000)
        self.assertEqual([len(pane) for pane in self.texts()], [8000, 8000])
        self.browser.evaluate("document.querySelector('.text').focus()")
        for _ in range(5):
            self.browser.press("ArrowRight")
        self.assertIn("Position 4, ", self.browser.evaluate("document.getElementById('readout').textContent"))

    def test_without_texts_there_is_no_prompt(self):
        self.open(pyramid_reply())
        self.assertTrue(self.browser.evaluate("document.getElementById('prompt').hidden"))
        self.open(echoed_reply(), "--no-tokens")
        self.assertTrue(self.browser.evaluate("document.getElementById('prompt').hidden"))

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
