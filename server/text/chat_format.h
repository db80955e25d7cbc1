// The chat formats we can write, and their recognition in a model's template text. A format is data: what stands before
// and after the contents.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace pkv {

// chatml and llama3: every message is  open role header_close content close, in any order.
// llama2 and mistral: user and assistant alternate; a system message goes into a user's message.
struct ChatFormat {
  enum class Shape : uint8_t { kHeaders, kAlternating };
  enum class SystemPlace : uint8_t { kNone, kFirstUser, kLastUser };  // of alternating formats

  std::string_view name;
  Shape shape = Shape::kHeaders;
  bool bos_first = false;      // the template itself writes the begin-of-text token in front of everything
  bool bos_each_turn = false;  // or in front of every user's message
  bool trim_user = false;      // contents without white space at both ends
  bool trim_assistant = false;

  // kHeaders
  std::string header_open, header_close, close;
  std::string default_system;   // added where the first message is not a system message; empty: none
  std::string system_preamble;  // in front of the system message, which is then always there (Llama 3.1); empty: none

  // kAlternating
  std::string user_open, user_close;
  std::string assistant_open, assistant_close, after_end;  // the end-of-text token stands before after_end
  std::string system_open, system_close;                   // around the system message, after user_open
  SystemPlace system_place = SystemPlace::kNone;
};

// None where the template writes anything else than a known format does.
std::optional<ChatFormat> recognise_chat_format(std::string_view template_text);

// Names of the special tokens that formats write.
inline constexpr std::string_view kChatMarkers[] = {
    "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "[INST]", "[/INST]"};

}  // namespace pkv
