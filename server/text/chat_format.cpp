// Recognises formats by the sequence of literals and variables their templates write.
#include "server/text/chat_format.h"

#include <algorithm>
#include <span>
#include <vector>

#include "server/text/template_scan.h"

namespace pkv {
namespace {

using Outputs = std::vector<TemplateOutput>;

bool starts_with(std::string_view text, std::string_view prefix) { return text.substr(0, prefix.size()) == prefix; }

// A pattern of parts: literals compared by value, or any ("*"); variables by name. Trimming is read, not compared.
struct Expected {
  bool literal;
  std::string_view text;
};
constexpr Expected literal(std::string_view text) { return {true, text}; }
constexpr Expected variable(std::string_view text) { return {false, text}; }

bool fits(const TemplatePart& part, const Expected& expected) {
  return part.literal == expected.literal && (expected.text == "*" || part.text == expected.text);
}

// The first output that is exactly this sequence.
const TemplateOutput* find_output(const Outputs& outputs, std::span<const Expected> expected) {
  for (const TemplateOutput& output : outputs) {
    if (std::equal(output.parts.begin(), output.parts.end(), expected.begin(), expected.end(), fits)) return &output;
  }
  return nullptr;
}
const TemplateOutput* find_output(const Outputs& outputs, std::initializer_list<Expected> expected) {
  return find_output(outputs, std::span<const Expected>(expected.begin(), expected.size()));
}

bool writes_bos(const Outputs& outputs) {
  for (const TemplateOutput& output : outputs) {
    for (const TemplatePart& part : output.parts) {
      if (part.text == "bos_token") return true;
    }
  }
  return false;
}

// "<|im_start|>system\n" + text + "<|im_end|>\n" as one string, as SmolLM2's and Qwen2's templates have it.
std::string chatml_default_system(const Outputs& outputs) {
  constexpr std::string_view kOpen = "<|im_start|>system\n", kClose = "<|im_end|>\n";
  for (const TemplateOutput& output : outputs) {
    if (output.parts.size() != 1 || !output.parts[0].literal) continue;
    const std::string_view text = output.parts[0].text;
    if (starts_with(text, kOpen) && text.find(kClose) + kClose.size() == text.size()) {
      return std::string(text.substr(kOpen.size(), text.size() - kOpen.size() - kClose.size()));
    }
  }
  return "";
}

std::optional<ChatFormat> recognise_chatml(const Outputs& outputs) {
  const TemplateOutput* message =
      find_output(outputs, {literal("<|im_start|>"), variable("message.role"), literal("\n"),
                            variable("message.content"), literal("<|im_end|>\n")});
  if (message == nullptr) return std::nullopt;
  const bool bos = find_output(outputs, {variable("bos_token")}) != nullptr;
  if (!bos && writes_bos(outputs)) return std::nullopt;
  return ChatFormat{.name = "chatml",
                    .shape = ChatFormat::Shape::kHeaders,
                    .bos_first = bos,
                    .trim_user = message->parts[3].trimmed,
                    .trim_assistant = message->parts[3].trimmed,
                    .header_open = "<|im_start|>",
                    .header_close = "\n",
                    .close = "<|im_end|>\n",
                    .default_system = chatml_default_system(outputs)};
}

// Llama 3.1 to 3.3 always write a system message that begins with two dates. Today's is the one the template has for
// programs that give it none: ours has no clock here, and a prompt stays the same from day to day.
std::optional<std::string> llama3_preamble(const Outputs& outputs) {
  std::string cutting, today;
  bool dated = false;
  for (const TemplateOutput& output : outputs) {
    for (const TemplatePart& part : output.parts) {
      if (!part.literal) continue;
      dated |= part.text.find("Cutting Knowledge Date: ") != std::string::npos;
      const size_t line_end = part.text.find('\n');
      if (starts_with(part.text, "Cutting Knowledge Date: ") && line_end != std::string::npos) {
        cutting = part.text.substr(0, line_end + 1);
      }
    }
    if (output.variable == "date_string" && output.parts.size() == 1 && output.parts[0].literal) {
      today = output.parts[0].text;
    }
  }
  if (!dated) return "";
  if (cutting.empty() || today.empty()) return std::nullopt;
  return cutting + "Today Date: " + today + "\n\n";
}

std::optional<ChatFormat> recognise_llama3(const Outputs& outputs) {
  const TemplateOutput* message =
      find_output(outputs, {literal("<|start_header_id|>"), variable("message.role"), literal("<|end_header_id|>\n\n"),
                            variable("message.content"), literal("<|eot_id|>")});
  const std::optional<std::string> preamble = llama3_preamble(outputs);
  if (message == nullptr || !preamble.has_value()) return std::nullopt;
  return ChatFormat{.name = "llama3",
                    .shape = ChatFormat::Shape::kHeaders,
                    .bos_first = writes_bos(outputs),
                    .trim_user = message->parts[3].trimmed,
                    .trim_assistant = message->parts[3].trimmed,
                    .header_open = "<|start_header_id|>",
                    .header_close = "<|end_header_id|>\n\n",
                    .close = "<|eot_id|>",
                    .system_preamble = *preamble};
}

std::optional<ChatFormat> recognise_llama2(const Outputs& outputs) {
  const TemplateOutput* user =
      find_output(outputs, {variable("bos_token"), literal("[INST] "), variable("content"), literal(" [/INST]")});
  const TemplateOutput* assistant =
      find_output(outputs, {literal(" "), variable("content"), literal(" "), variable("eos_token")});
  const TemplateOutput* system = find_output(outputs, {literal("<<SYS>>\n"), variable("system_message"),
                                                       literal("\n<</SYS>>\n\n"), variable("message.content")});
  if (user == nullptr || assistant == nullptr || system == nullptr) return std::nullopt;
  return ChatFormat{.name = "llama2",
                    .shape = ChatFormat::Shape::kAlternating,
                    .bos_each_turn = true,
                    .trim_user = user->parts[2].trimmed,
                    .trim_assistant = assistant->parts[1].trimmed,
                    .user_open = "[INST] ",
                    .user_close = " [/INST]",
                    .assistant_open = " ",
                    .assistant_close = " ",
                    .system_open = "<<SYS>>\n",
                    .system_close = "\n<</SYS>>\n\n",
                    .system_place = ChatFormat::SystemPlace::kFirstUser};
}

// Mistral's templates differ in their spaces: "[INST] x [/INST]" or " [INST] x[/INST]", " y</s>" or "y</s> "...
std::optional<ChatFormat> recognise_mistral(const Outputs& outputs, std::string_view template_text) {
  constexpr Expected kContent = variable("message.content"), kEos = variable("eos_token");
  const TemplateOutput* user = find_output(outputs, {literal("*"), kContent, literal("*")});
  if (user == nullptr) return std::nullopt;
  const std::string open = user->parts[0].text, close = user->parts[2].text;
  if ((open != "[INST] " && open != " [INST] ") || (close != " [/INST]" && close != "[/INST]")) return std::nullopt;

  ChatFormat format{.name = "mistral",
                    .shape = ChatFormat::Shape::kAlternating,
                    .bos_first = find_output(outputs, {variable("bos_token")}) != nullptr,
                    .trim_user = user->parts[1].trimmed,
                    .user_open = open,
                    .user_close = close};
  const TemplateOutput* assistant = nullptr;
  for (const bool before : {false, true}) {
    for (const bool after : {false, true}) {
      std::vector<Expected> expected;
      if (before) expected.push_back(literal(" "));
      expected.insert(expected.end(), {kContent, kEos});
      if (after) expected.push_back(literal(" "));
      const TemplateOutput* found = find_output(outputs, expected);
      if (found == nullptr) continue;
      assistant = found;
      format.trim_assistant = found->parts[before ? 1 : 0].trimmed;
      format.assistant_open = before ? " " : "";
      format.after_end = after ? " " : "";
    }
  }
  if (assistant == nullptr || !format.bos_first) return std::nullopt;

  const TemplateOutput* system =
      find_output(outputs, {literal(open), variable("system_message"), literal("\n\n"), kContent, literal(close)});
  if (system != nullptr) {
    format.system_close = "\n\n";
    format.system_place = template_text.find("loop.last and system_message") != std::string_view::npos
                              ? ChatFormat::SystemPlace::kLastUser
                              : ChatFormat::SystemPlace::kFirstUser;
  }
  return format;
}

}  // namespace

std::optional<ChatFormat> recognise_chat_format(std::string_view template_text) {
  const Outputs outputs = scan_template(template_text);
  if (auto format = recognise_chatml(outputs); format.has_value()) return format;
  if (auto format = recognise_llama3(outputs); format.has_value()) return format;
  if (auto format = recognise_llama2(outputs); format.has_value()) return format;
  return recognise_mistral(outputs, template_text);
}

}  // namespace pkv
