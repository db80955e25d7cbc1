#!/usr/bin/env python3
"""Compares what our interpreter and Python's Jinja2 make of real chat templates, which are not ours to keep here: every
*.jinja file of a folder, over many conversations. `served` are conversations as the server gives them to a template,
`more` have what it does not give yet: tools, calls of them, parts of contents, reasoning, other variables.

Prints a line for each template that is not the same in all of them, then counts; exit status 1 where there is one that
Jinja2 renders and we do not render the same.

Usage: pip install jinja2==3.1.6 && python3 compare_templates.py FOLDER PROGRAM    (PROGRAM: the target render_templates)
"""
import argparse
import collections
import itertools
import json
import pathlib
import subprocess

from make_cases import CONTENTS, VARIABLES, compiled, conversations, environment, render

WEATHER = {"name": "get_weather", "arguments": {"city": "Köln", "days": 2, "units": None, "deep": {"list": [1, "<a>", 2.5]}}}
ORDERS = [["user"], ["system", "user"], ["user", "assistant"], ["user", "assistant", "user"], ["system", "user", "assistant"],
          ["system", "user", "assistant", "user", "assistant", "user"], ["assistant"], ["system"], ["user", "user"],
          ["system", "system", "user"], ["user", "system", "user"], ["assistant", "user"], ["user", "assistant", "assistant"],
          ["user", "assistant"] * 4 + ["user"]]


def said(role, content, **more):
    return {"role": role, "content": content, **more}


def served():
    """Every order of roles with several contents each, with and without the beginning of an answer."""
    contents = itertools.cycle(CONTENTS)
    for roles, answer in itertools.product(ORDERS * 2, [True, False]):
        messages = [said(role, next(contents)) for role in roles]
        yield {"messages": messages, "add_generation_prompt": answer, "tools": None, "documents": None}
    for content in CONTENTS:
        messages = [said(role, content) for role in ["system", "user", "assistant", "user"]]
        yield {"messages": messages, "add_generation_prompt": True, "tools": None, "documents": None}


def calls(arguments, **more):
    call = {"id": "call00001", "type": "function", "function": {"name": WEATHER["name"], "arguments": arguments}}
    return [said("user", "Weather?"), said("assistant", more.pop("content", ""), tool_calls=[call], **more),
            said("tool", "{\"sky\": \"grey\"}", tool_call_id="call00001", name=WEATHER["name"]),
            said("assistant", "Grey."), said("user", "Thanks")]


def more():
    tools = VARIABLES["tools"]
    parts = [{"type": "text", "text": "One "}, {"type": "text", "text": " two"}]
    pictures = [{"type": "image"}, {"type": "text", "text": "What is this?"}]
    plain = [said("system", "Be brief."), said("user", "Hello!")]
    chats = [plain, calls(WEATHER["arguments"]), calls(json.dumps(WEATHER["arguments"])), calls({}, content=None),
             plain[:1] + calls(WEATHER["arguments"], reasoning_content="Hm.\n"), [said("user", parts)],
             [said("system", parts), said("user", pictures), said("assistant", parts), said("user", parts)],
             plain + [said("assistant", "<think>\nhm\n</think>\n\nHi"), said("user", "more"), said("assistant", "</think>ok")],
             plain + [said("assistant", None), said("user", "x")], calls(WEATHER["arguments"])[:3], calls(WEATHER["arguments"])[:2],
             [said("developer", "Be brief."), said("user", "x")], [said("user", "x"), said("ipython", "y")], [{"role": "user"}], []]
    settings = [{"tools": tools}, {"tools": []}, {}, {"tools": tools * 2, "enable_thinking": True, "add_generation_prompt": False},
                {"tools": tools, "enable_thinking": False, "thinking": True}, {"tools": tools, "reasoning_effort": "high"},
                {"documents": [{"title": "T", "text": "words", "doc_id": 1}], "tools": None},
                {"custom_tools": tools, "date_string": "1 Jan 2026", "tools_in_user_message": False, "builtin_tools": ["search"]},
                {"functions": json.dumps(tools), "datetime": "now", "add_generation_prompt": False}]
    for messages, setting in itertools.product(chats, settings):
        yield {"messages": messages, "add_generation_prompt": True, **setting}
    yield from conversations()


def same(ours, python):
    """Jinja2's words for a failure are not ours, and need not be; what calls itself without end fails in both."""
    return ours == python or ("failed" in python and ("failed" in ours or "exhausted" in ours))


def brief(outcome, at):
    kind, value = next(iter(outcome.items()))
    return f"{kind} {value[max(0, at - 40):at + 40]!r}" if isinstance(value, str) else kind


def difference(ours, python):
    texts = [value if isinstance(value, str) else "" for outcome in (ours, python) for value in outcome.values()]
    at = next((i for i, (a, b) in enumerate(zip(*texts)) if a != b), min(map(len, texts)))
    return f"ours {brief(ours, at)}, Jinja2 {brief(python, at)}"


def judge(env, text, cases, ours):
    """(verdict, why)"""
    template = compiled(env, text)
    python = [render(template, {**variables, "bos_token": "<s>", "eos_token": "</s>"}) for variables in cases]
    if "refused" in ours:
        return ("refused by both" if "refused" in python[0] else "refused"), ours["refused"]
    if "refused" in python[0]:
        return "different", "Jinja2 refuses it"
    wrong = [i for i, outcome in enumerate(python) if not same(ours["cases"][i], outcome)]
    if not wrong:
        return "same", collections.Counter(next(iter(outcome)) for outcome in python)
    first = wrong[0]
    variables = json.dumps(cases[first], ensure_ascii=False)
    return "different", f"{len(wrong)} of {len(cases)}, first {first}: {difference(ours['cases'][first], python[first])}, of {variables}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("program", type=pathlib.Path)
    args = parser.parse_args()
    env = environment()
    paths = sorted(args.folder.rglob("*.jinja"))
    texts = [path.read_bytes().decode() for path in paths]
    good = True
    for name, cases in [("served", list(served())), ("more", list(more()))]:
        lines = "".join(json.dumps({"template": text, "cases": cases}) + "\n" for text in texts)
        output = subprocess.run([args.program], input=lines, capture_output=True, text=True, check=True).stdout.splitlines()
        verdicts, outcomes = collections.Counter(), collections.Counter()
        for path, text, line in zip(paths, texts, output, strict=True):
            verdict, why = judge(env, text, cases, json.loads(line))
            verdicts[verdict] += 1
            if verdict == "same":
                outcomes += why
            else:
                print(f"{name} {path.name}: {verdict}: {why}")
        good = good and not verdicts["different"] and not verdicts["refused"]
        print(f"{name}: {len(paths)} templates x {len(cases)} conversations: {dict(verdicts)}; of the same: {dict(outcomes)}", flush=True)
    raise SystemExit(0 if good and paths else 1)


if __name__ == "__main__":
    main()
