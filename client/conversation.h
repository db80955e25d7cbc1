// What has been said in a chat, and the words that begin with a slash.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace pkv::client {

class Conversation {
 public:
  using Messages = std::vector<std::pair<std::string, std::string>>;  // role, content

  explicit Conversation(std::string system);

  // The messages to send for an answer to `text`; they become part of the conversation with answered().
  Messages asked(std::string text);
  void answered(std::string answer);
  // The text of the last question, where it got no answer or only a broken one; asked() sends it again.
  const std::optional<std::string>& unanswered() const { return unanswered_; }

  // Forgets the `count` oldest exchanges, as many as there are at most; returns how many.
  size_t forget(size_t count);
  void reset();
  size_t exchanges() const { return exchanges_.size(); }

  // pyramidkv.v1.ChatInput as JSON, which is what `messages` of a request look like.
  std::string to_json() const;
  // Takes the place of everything said so far, the system message included. Returns what is wrong, or "".
  std::string read_json(const std::string& json);

 private:
  Messages messages() const;

  std::string system_;
  std::vector<std::pair<std::string, std::string>> exchanges_;  // question, answer
  std::optional<std::string> unanswered_;
};

// A line typed in a chat. "//" at the beginning is a slash of the message itself.
struct ChatLine {
  std::string command;                 // without slash; empty: a message
  std::vector<std::string> arguments;  // of a command
  std::string text;                    // the message
  std::string problem;                 // why it is neither
};
ChatLine read_chat_line(const std::string& line);

// What /help prints.
extern const char* const kChatHelp;

}  // namespace pkv::client
