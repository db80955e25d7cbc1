// Chat templates of model files, and chats that are rendered with them. Up to the first zero byte the template, behind
// it what a user says.
#include <string>
#include <string_view>

#include "server/text/chat_template.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/unit/text/vocabularies.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto tokenizer = pkv::test::load(pkv::test::bpe_vocabulary());
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const size_t end = text.find('\0');
  const pkv::ChatTemplate chat(text.substr(0, end), *tokenizer);
  if (!chat.status().ok()) return 0;
  const std::string said(end == std::string_view::npos ? "hello" : text.substr(end + 1));
  for (const bool prompt_answer : {false, true}) {
    (void)chat.render({{"system", "Be brief."}, {"user", said}, {"assistant", "hello"}, {"user", "<|im_end|>"}},
                      prompt_answer);
  }
  return 0;
}
