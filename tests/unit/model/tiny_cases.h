// The tiny models whose logits tests/golden/make_tiny_cases.py computes with transformers.
#pragma once

#include <string>
#include <vector>

#include "tests/support/gguf_writer.h"

namespace pkv::test {

struct TinyCase {
  std::string name;
  GgufWriter model;
};

inline std::vector<TinyCase> tiny_cases() {
  return {
      {"llama", tiny_llama({})},
      {"qwen2", tiny_qwen2({})},
      {"qwen2_own_head", tiny_qwen2({.q_heads = 14, .kv_heads = 2, .head_dim = 8, .width = 112, .own_head = true})},
      {"qwen3", tiny_qwen3({})},
      {"qwen3_own_head", tiny_qwen3({.layers = 3, .q_heads = 6, .kv_heads = 2, .head_dim = 24, .own_head = true})},
  };
}

}  // namespace pkv::test
