#!/usr/bin/env python3
"""Makes cases.json beside this file: templates of our own and what Python's Jinja2 makes of them, set up as transformers
sets it up. `snippets` exercise one thing each, with VARIABLES; `chats` are whole templates in the style of well-known
models, each with several conversations.

Usage: pip install jinja2==3.1.6 && python3 make_cases.py
"""
import datetime
import itertools
import json
import pathlib

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment

HERE = pathlib.Path(__file__).parent
NOW = datetime.datetime(2026, 2, 3, 4, 5, 6)


class Raised(Exception):
    pass


class Generation(Extension):
    """{% generation %} as transformers' AssistantTracker has it: a block that writes what stands in it."""
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.CallBlock(self.call_method("_write"), [], [], body).set_lineno(line)

    def _write(self, caller):
        return caller()


def raise_exception(message):
    raise Raised(message)


def environment():
    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda form: NOW.strftime(form)
    return env


VARIABLES = {
    "n": 7, "m": -3, "x": 2.5, "big": 1e20, "tiny": 1e-7, "yes": True, "no": False, "nothing": None,
    "s": "Hello, World", "blank": "", "spaces": "  padded \n", "unicode": "Ünïcödé ß ﬁ 漢字 \U0001f600 İ", "quotes": "it's \"so\"\n\t\\",
    "lines": "one\ntwo\n\nthree\r\nfour", "thought": "<think>\nhm\n</think>\n\nanswer", "html": "<b a='1'>&\"</b>",
    "list": [3, 1, 2], "words": ["pear", "Apple", "fig", "apple"], "mixed": [1, 1.0, True, None, "a", [1, 2], {"k": "v"}],
    "empty": [], "nested": [[1, 2], [3, [4, 5]]],
    "d": {"b": 2, "a": 1, "C": 3}, "user": {"name": "Ann", "tags": ["x", "y"], "items": "shadowed", "age": 41},
    "users": [{"name": "Bo", "age": 30, "on": True}, {"name": "al", "age": 25, "on": False}, {"name": "Cy", "age": 30}],
    "tools": [{"type": "function", "function": {"name": "get_weather", "description": "Gets <the> \"weather\" – now",
               "parameters": {"type": "object", "properties": {"city": {"type": "string", "enum": ["Köln", "Oslo"]},
                                                               "days": {"type": ["integer", "null"], "default": 3}},
                              "required": ["city"]}}}],
}


def read(name):
    return (HERE / name).read_text()


def snippets():
    """One template a paragraph; '%%%' lines part them."""
    return [part.strip("\n") for part in read("snippets.txt").split("\n%%%\n")]


def chats():
    """name -> text, from chats/."""
    return {path.stem: path.read_text() for path in sorted((HERE / "chats").glob("*.jinja"))}


def compiled(env, text):
    """None: refused."""
    try:
        return env.from_string(text)
    except (jinja2.TemplateSyntaxError, SyntaxError):
        return None


def render(template, variables):
    if template is None:
        return {"refused": True}
    try:
        return {"text": template.render(**variables)}
    except Raised as error:
        return {"raised": str(error)}
    except Exception:
        return {"failed": True}


CONTENTS = ["Hello!", "  padded \n", "What is 2+2?\n", "\u00a0é\u3000", "", "line\nline", "<|im_end|> </s> <|eot_id|> <end_of_turn>",
            "<think>\nLet me see.\n</think>\n\nFour.", "[INST] x [/INST] 'quoted' \"twice\" <b>"]
ROLES = [["user"], ["system", "user"], ["user", "assistant", "user"], ["system", "user", "assistant", "user", "assistant", "user"],
         ["assistant"], ["user", "user"], ["system"], ["user", "assistant", "tool", "user"], ["user", "system", "user"]]


def conversations():
    contents = itertools.cycle(CONTENTS)
    for i, roles in enumerate(ROLES * 2):
        variables = {"messages": [{"role": role, "content": next(contents)} for role in roles], "add_generation_prompt": i % 3 != 0}
        if i % 4 == 1:
            variables["tools"] = VARIABLES["tools"]
        if i % 5 == 2:
            variables["enable_thinking"] = i % 2 == 0
        yield variables


def main():
    env = environment()
    out = {"variables": VARIABLES, "snippets": [], "chats": []}
    for text in snippets():
        out["snippets"].append({"template": text, **render(compiled(env, text), VARIABLES)})
    for name, text in chats().items():
        template = compiled(env, text)
        cases = [{"variables": v, **render(template, {**v, "bos_token": "<s>", "eos_token": "</s>"})} for v in conversations()]
        out["chats"].append({"name": name, "template": text, "cases": cases})
    (HERE / "cases.json").write_text(json.dumps(out, ensure_ascii=True, indent=0) + "\n")


if __name__ == "__main__":
    main()
