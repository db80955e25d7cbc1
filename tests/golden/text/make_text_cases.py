#!/usr/bin/env python3
"""Makes bpe_cases.json, spm_cases.json and chat_cases.json beside this file, from independent implementations: small byte-level
BPE tokenizers of Hugging Face `tokenizers` with the pre-tokenisers of GPT-2, SmolLM2, Llama 3 and Qwen2, small SentencePiece
models, and chat templates run by Jinja as transformers runs them. With the model's file, also chat_prompts.json: the text of the
prompts that are there, in the tokens of Hugging Face `tokenizers` with the model's vocabulary.

Usage: pip install tokenizers==0.23.* sentencepiece==0.2.* protobuf jinja2 gguf && python3 make_text_cases.py [MODEL.gguf]
"""
import io
import json
import pathlib
import random
import sys

import sentencepiece as spm
from jinja2.sandbox import ImmutableSandboxedEnvironment
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

HERE = pathlib.Path(__file__).parent

CORPUS = """The quick brown fox doesn't jump over 12345 lazy dogs; they've been told it's 1999 again, and I'll wait, she'd say.
We're 100 years late! THAT'S WHAT HE'S SAYING, ISN'T IT? You'LL see. def main(argv):\n    if x == 3:\n        return {"a": [1, 2, 3]}
Der schnelle braune Fuchs springt über den faulen Hund, und die Größe der Straße beträgt 42 Meter. Ein schöner Tag für alle.
Le café était fermé à l'époque où l'été commençait; ça ne m'a pas étonné. Où êtes-vous allés après cela ?
Быстрая коричневая лиса прыгает через ленивую собаку. Сегодня хорошая погода, и мы пойдём гулять в парк.
Η γρήγορη καφέ αλεπού πηδάει πάνω από το τεμπέλικο σκυλί. השועל החום המהיר קופץ מעל הכלב העצלן.
الثعلب البني السريع يقفز فوق الكلب الكسول ١٢٣٤٥ مرات. तेज भूरी लोमड़ी आलसी कुत्ते के ऊपर कूदती है।
敏捷的棕色狐狸跳过了懒狗。今天天气很好，我们去公园散步吧。素早い茶色の狐がのろまな犬を飛び越える。빠른 갈색 여우가 게으른 개를 뛰어넘는다.
the the the and and of of to to in in is is it it that that for for was was on on are are as as with with they they
http://example.org/path?query=value&other=1#fragment  C++ -> Rust; foo_bar = baz->qux(); // comment\t\tTabs    and spaces
""".split("\n")

ALPHABET = list("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") + list("0123456789") * 3 + list(" \t\n\r") * 8 + [
    "\r\n", "  ", "   ", "\n\n", "\u000b", "\u000c", "\u001c", "\u001f", "\u0085", "\u00a0", "\u1680", "\u180e", "\u2000", "\u200a",
    "\u200b", "\u2028", "\u2029", "\u202f", "\u205f", "\u3000", "\ufeff", "'s", "'S", "'t", "'T", "'re", "'VE", "'m", "'ll", "'LL", "'d",
    "'\u017f", "'", "''", "\u2019s", "\u00b2", "\u00bd", "\u0663", "\u216b", "\u3007", "\u0967", "\u1369", "\U0001d7d8", "é", "e\u0301", "\u0300",
    "ß", "ſ", "İ", "ж", "Ж", "α", "ש", "\u05b8", "ع", "\u0651", "त", "\u093f", "ก", "\u0e31", "漢", "字", "。", "，", "あ", "ア", "한", "글",
    "\u1100", "\U0001f600", "\U0001f469\u200d\U0001f52c", "\U0001f1e9\U0001f1ea", "\u2764\ufe0f", "\u00ad", "\u00aa", "\u02b0", "_", "-", "--", "!", "?!",
    "...", "(", ")", "{", "}", "[", "]", "<", ">", "/", "\\", "#", "$", "€", "+", "=", "|", "~", "^", "`", '"', "&", "*", "@", "%", ":", ";",
    "the", "and", " the", " and", "\u0000", "\u0001", "\u007f", "\ufffd", "\U0010ffff", "\ue000"]

FIXED = ["", " ", "  ", "\n", "\r\n\r\n", " \n", "\n ", "  \n\n  x", "   1", "a  1", "1  a", "12345678", " 12345678", "x12y345z", "it's IT'S 'S 's",
         "don't DON'T you'Ve", "'ſ'Sx", " 'll", "\t\tif x:\r\n\t\treturn 1", "a\u180eb", "a\u0085b \u0085 c", "\u00a0\u00a0x", "x\u3000\u3000y",
         "²½Ⅻ٣१", "e\u0301 é", "👩‍🔬👨‍👩‍👧", "1,234.56", "!!!\n\n\nx", "!!! \n x", " !?\r\n", "a" * 300, " " * 300, "ab" * 200, "9" * 50, "\n" * 40,
         " x" * 60, "    four", "four    ", "_under_score_", "http://a.b/c?d=e&f#g", "the quick brown fox", "\u0000\u0001", "日本語のテキスト。", "hello world"]

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
USER_DEFINED = ["<tool>", "<tool>x", "§§"]
WITH_SPECIAL = ["<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n", "<|im_start|><|im_start|>x", "a <|im_end|> b", "<|im_end", "<<|im_end|>>",
                "x<tool>xy <tool> y", "<tool><tool>x§§§", "1<|endoftext|>2 <|endoftext|>  3", "  <|im_end|>  "]

SPLITS = {
    "gpt-2": r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+""",
    "llama-bpe": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "qwen2": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}


def random_texts(rng, count):
    return ["".join(rng.choices(ALPHABET, k=rng.randint(1, 24))) for _ in range(count)]


def pre_tokenizer(name):
    if name == "smollm":
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    if name == "gpt-2":  # the library's own, as an independent reading of the expression
        return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(SPLITS[name]), behavior="isolated", invert=False),
                                    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def make_bpe(name, rng):
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizer(name)
    # smollm without the whole alphabet: some bytes are in no token, as in the real vocabulary.
    alphabet = [] if name == "smollm" else sorted(pre_tokenizers.ByteLevel.alphabet())
    trained.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=700, initial_alphabet=alphabet, show_progress=False))
    state = json.loads(trained.to_str())["model"]
    vocab, merges = state["vocab"], [tuple(m) for m in state["merges"]]
    if name == "llama-bpe":  # tokens that only a look-up of the whole piece can find
        for word in ["Ġquark", "hello", "Ġworld", "!!!ĊĊĊ"]:
            vocab[word] = len(vocab)
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=name == "llama-bpe"))
    tokenizer.pre_tokenizer = pre_tokenizer(name)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in USER_DEFINED])
    tokens = [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())]
    types = [3 if t in SPECIAL else 4 if t in USER_DEFINED else 1 for t in tokens]
    cases = []
    for text in FIXED + CORPUS + WITH_SPECIAL + random_texts(rng, 160):
        tokenizer.encode_special_tokens = False
        parsed = tokenizer.encode(text, add_special_tokens=False).ids
        tokenizer.encode_special_tokens = True
        plain = tokenizer.encode(text, add_special_tokens=False).ids
        case = {"text": text, "ids": parsed}
        if plain != parsed:
            case["plain_ids"] = plain
        cases.append(case)
    return {"pre": name, "tokens": tokens, "types": types, "merges": [" ".join(m) for m in merges], "cases": cases}


def make_spm(name, rng, unused=(), **options):
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(sentence_iterator=iter(CORPUS * 3), model_writer=model, model_type="bpe",
                                   normalization_rule_name="identity", remove_extra_whitespaces=False, vocab_size=760,
                                   character_coverage=0.98, minloglevel=2, **options)
    proto = sentencepiece_model_pb2.ModelProto.FromString(model.getvalue())
    for piece in proto.pieces:
        if piece.piece in unused:
            piece.type = 5
    processor = spm.SentencePieceProcessor(model_proto=proto.SerializeToString())
    # NUL and U+2581 (the spelling of a space) are left out: SentencePiece itself cannot tell them from other things.
    texts = [t for t in FIXED + CORPUS + ["<s>a</s>", "<0x41>", "<unk>"] + random_texts(rng, 160) if t and "\0" not in t]
    return {"name": name, "add_space_prefix": options.get("add_dummy_prefix", True), "tokens": [p.piece for p in proto.pieces],
            "types": [p.type for p in proto.pieces], "scores": [p.score for p in proto.pieces],
            "cases": [{"text": t, "ids": processor.encode(t), "decoded": processor.decode(processor.encode(t))} for t in texts]}


TEMPLATES = {
    "smollm2": "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "qwen2": "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    "qwen2.5": """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0]['role'] == 'system' %}
        {{- messages[0]['content'] }}
    {%- else %}
        {{- 'You are Qwen, created by Alibaba Cloud. You are a helpful assistant.' }}
    {%- endif %}
    {{- "\\n\\n# Tools\\n\\nYou may call one or more functions to assist with the user query.\\n\\n<tools>" }}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>system\\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role }}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
""",
    "chatml-lines": """{% for message in messages %}
{{ '<|im_start|>' ~ message.role ~ '\\n' ~ message.content | trim ~ '<|im_end|>\\n' }}
{%- endfor %}
{% if add_generation_prompt %}
{{ "<|im_start|>assistant\\n" }}
{%- endif %}""",
    "chatml-raw": """{{ bos_token }}{% for message in messages %}<|im_start|>{{ message['role'] }}
{{ message['content'] }}<|im_end|>
{{ '' }}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{{ '' }}{% endif %}""",
    "llama2": "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}",
    "llama3": "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
    "llama3.2": """{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}

{#- This block extracts the system message, so we can slot it into the right place. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}

{#- System message #}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}
    {{- "Environment: ipython\\n" }}
{%- endif %}
{{- "Cutting Knowledge Date: December 2023\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}

{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
""",
    "mistral-0.1": "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token + ' ' }}{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}",
    "mistral-0.2": """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}

{{- bos_token }}
{%- for message in loop_messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('After the optional system message, conversation roles must alternate user/assistant/user/assistant/...') }}
    {%- endif %}
    {%- if message["role"] == "user" %}
        {%- if loop.first and system_message is defined %}
            {{- " [INST] " + system_message + "\\n\\n" + message["content"] + " [/INST]" }}
        {%- else %}
            {{- " [INST] " + message["content"] + " [/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"] + eos_token}}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are supported, with the exception of an initial optional system message!") }}
    {%- endif %}
{%- endfor %}
""",
    "mistral-0.3": """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- endif %}
{%- endfor %}
""",
}

CONTENTS = ["Hello!", "  padded \n", "\n\nx", "What is 2+2?\n", "\u00a0é\u3000", "", "  ", "line\nline", "<|im_end|> and </s> and <|eot_id|>", "[INST] x [/INST]"]
ROLES = [["user"], ["system", "user"], ["user", "assistant", "user"], ["system", "user", "assistant", "user"],
         ["user", "assistant", "user", "assistant", "user"], ["user", "assistant"], ["system", "user", "assistant"]]


def make_chats(rng):
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    chats = []
    for name, text in TEMPLATES.items():
        template = environment.from_string(text)
        cases = []
        for roles in ROLES * 3:
            if name == "mistral-0.1" and roles[0] == "system":
                continue
            if name == "mistral-0.3" and roles[0] == "system" and roles[-1] == "assistant":
                continue  # the template loses the system message; we refuse
            messages = [{"role": role, "content": rng.choice(CONTENTS)} for role in roles]
            generate = rng.random() < 0.7
            rendered = template.render(messages=messages, add_generation_prompt=generate, bos_token="<s>", eos_token="</s>")
            cases.append({"messages": messages, "add_generation_prompt": generate, "text": rendered})
        chats.append({"name": name, "template": text, "cases": cases})
    return chats


def make_chat_prompts(path):
    from gguf import GGUFReader
    fields = GGUFReader(path).fields
    tokens, merges, types = (fields["tokenizer.ggml." + key].contents() for key in ("tokens", "merges", "token_type"))
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=[tuple(m.split(" ")) for m in merges]))
    tokenizer.pre_tokenizer = pre_tokenizer("smollm")
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t, kind in zip(tokens, types) if kind == 3])
    prompts = json.loads((HERE / "chat_prompts.json").read_text())
    return {name: tokenizer.encode(tokenizer.decode(ids, skip_special_tokens=False)).ids for name, ids in prompts.items()}


def write(name, value):
    (HERE / name).write_text(json.dumps(value, ensure_ascii=True, separators=(",", ":")) + "\n")


def main():
    rng = random.Random(20240611)
    write("bpe_cases.json", [make_bpe(name, rng) for name in ["gpt-2", "smollm", "llama-bpe", "qwen2"]])
    write("spm_cases.json", [make_spm("byte_fallback", rng, byte_fallback=True),
                             make_spm("no_byte_tokens", rng, byte_fallback=False),
                             make_spm("no_prefix_unused_pieces", rng, byte_fallback=True, add_dummy_prefix=False,
                                      unused={"\u2581the", "an", "in", "\u2581and", "re"})])
    write("chat_cases.json", make_chats(rng))
    if len(sys.argv) > 1:
        write("chat_prompts.json", make_chat_prompts(sys.argv[1]))


main()
