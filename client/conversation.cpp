#include "client/conversation.h"

#include <google/protobuf/util/json_util.h>

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "client/words.h"
#include "pyramidkv/v1/generation.pb.h"

namespace pkv::client {
namespace {

namespace v1 = ::pyramidkv::v1;

struct Word {
  const char* name;
  size_t fewest, most;  // arguments
};
constexpr Word kWords[] = {{"help", 0, 0},   {"quit", 0, 0},  {"exit", 0, 0},  {"policy", 0, 3},
                           {"budget", 0, 1}, {"stats", 0, 0}, {"reset", 0, 0}, {"retry", 0, 0},
                           {"forget", 0, 1}, {"save", 1, 1},  {"load", 1, 1}};

}  // namespace

const char* const kChatHelp =
    "/policy NAME [BUDGET [SCOPE]]  cache policy of the next answers: /policy snapkv 128\n"
    "/budget BUDGET                 128 (entries per head), 12% (of the prompt), 4MiB, recall:0.95\n"
    "/stats                         the last answer's cache report, and how long the conversation is\n"
    "/retry                         ask the last unanswered question again\n"
    "/forget [N]                    drop the N oldest exchanges (1)\n"
    "/reset                         begin anew; the system message stays\n"
    "/save FILE, /load FILE         the conversation as JSON\n"
    "/help, /quit                   (Ctrl-D leaves too, Ctrl-C stops an answer)\n"
    "A line that ends with \\ goes on in the next one; // begins a message with a slash.\n";

Conversation::Conversation(std::string system) : system_(std::move(system)) {}

Conversation::Messages Conversation::messages() const {
  Messages all;
  if (!system_.empty()) all.emplace_back("system", system_);
  for (const auto& [question, answer] : exchanges_) {
    all.emplace_back("user", question);
    all.emplace_back("assistant", answer);
  }
  return all;
}

Conversation::Messages Conversation::asked(std::string text) {
  unanswered_ = std::move(text);
  Messages all = messages();
  all.emplace_back("user", *unanswered_);
  return all;
}

void Conversation::answered(std::string answer) {
  exchanges_.emplace_back(unanswered_.value_or(""), std::move(answer));
  unanswered_.reset();
}

size_t Conversation::forget(size_t count) {
  count = std::min(count, exchanges_.size());
  exchanges_.erase(exchanges_.begin(), exchanges_.begin() + static_cast<std::ptrdiff_t>(count));
  return count;
}

void Conversation::reset() {
  exchanges_.clear();
  unanswered_.reset();
}

std::string Conversation::to_json() const {
  v1::ChatInput input;
  for (const auto& [role, content] : messages()) {
    v1::ChatMessage& message = *input.add_messages();
    message.set_role(role);
    message.set_content(content);
  }
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = true;
  std::string json;
  (void)google::protobuf::util::MessageToJsonString(input, &json, options);
  return json;
}

std::string Conversation::read_json(const std::string& json) {
  constexpr char kForm[] = "is no conversation saved by /save";
  v1::ChatInput input;
  if (!google::protobuf::util::JsonStringToMessage(json, &input, {}).ok() || input.messages().empty()) return kForm;
  Conversation loaded("");
  int at = 0;
  if (input.messages(0).role() == "system") loaded.system_ = input.messages(at++).content();
  for (; at < input.messages_size(); at += 2) {
    const bool pair = at + 1 < input.messages_size() && input.messages(at).role() == "user" &&
                      input.messages(at + 1).role() == "assistant";
    if (!pair) return absl::StrCat(kForm, ": message ", at, " is no question with an answer behind it");
    loaded.exchanges_.emplace_back(input.messages(at).content(), input.messages(at + 1).content());
  }
  *this = std::move(loaded);
  return "";
}

ChatLine read_chat_line(const std::string& line) {
  const std::string text(absl::StripAsciiWhitespace(line));
  if (text.empty() || text[0] != '/') return {.text = line};
  if (text.size() > 1 && text[1] == '/') return {.text = text.substr(1)};
  ChatLine result;
  std::vector<std::string> words = absl::StrSplit(text.substr(1), ' ', absl::SkipEmpty());
  if (words.empty()) words.push_back("");
  std::vector<std::string> names;
  for (const Word& word : kWords) {
    names.push_back(absl::StrCat("/", word.name));
    if (words[0] != word.name) continue;
    const size_t given = words.size() - 1;
    if (given < word.fewest || given > word.most)
      return {.problem = absl::StrCat("/", word.name, given < word.fewest ? " needs a word more" : " takes fewer words",
                                      "; /help shows how it is written")};
    result.command = words[0];
    result.arguments.assign(words.begin() + 1, words.end());
    return result;
  }
  return {.problem = absl::StrCat("there is no command /", words[0], did_you_mean(absl::StrCat("/", words[0]), names),
                                  "; /help lists them")};
}

}  // namespace pkv::client
