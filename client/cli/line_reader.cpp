// libedit on a terminal, std::getline elsewhere.
#include "client/cli/line_reader.h"

#include <histedit.h>
#include <sys/stat.h>
#include <unistd.h>

#include <clocale>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <iostream>

namespace pkv::client {
namespace {

constexpr int kHistorySize = 1000;

// Takes the backslash at the end away; false where there is none.
bool goes_on(std::string& line) {
  if (line.empty() || line.back() != '\\') return false;
  line.back() = '\n';
  return true;
}

class PlainReader final : public LineReader {
 public:
  Outcome read(std::string& line) override {
    line.clear();
    std::string part;
    while (std::getline(std::cin, part)) {
      if (!part.empty() && part.back() == '\r') part.pop_back();
      line += part;
      if (!goes_on(line)) return Outcome::kLine;
    }
    return line.empty() ? Outcome::kEnd : Outcome::kLine;
  }
  bool terminal() const override { return false; }
};

class EditingReader final : public LineReader {
 public:
  explicit EditingReader(std::string history_file) : history_file_(std::move(history_file)) {
    if (std::setlocale(LC_CTYPE, "") == nullptr || MB_CUR_MAX == 1) std::setlocale(LC_CTYPE, "C.UTF-8");
    editor_ = el_init("pyramidkv", stdin, stderr, stderr);
    history_ = history_init();
    HistEvent event;
    history(history_, &event, H_SETSIZE, kHistorySize);
    history(history_, &event, H_SETUNIQUE, 1);
    if (!history_file_.empty()) history(history_, &event, H_LOAD, history_file_.c_str());
    el_set(editor_, EL_CLIENTDATA, this);
    el_set(
        editor_, EL_PROMPT, +[](EditLine* editor) {
          EditingReader* self = nullptr;
          el_get(editor, EL_CLIENTDATA, &self);
          return self->prompt_;
        });
    el_set(editor_, EL_EDITOR, "emacs");
    el_set(editor_, EL_HIST, history, history_);
    el_set(editor_, EL_BIND, "^R", "em-inc-search-prev", nullptr);
    el_source(editor_, nullptr);  // ~/.editrc
  }
  ~EditingReader() override {
    history_end(history_);
    el_end(editor_);
  }
  EditingReader(const EditingReader&) = delete;
  EditingReader& operator=(const EditingReader&) = delete;

  Outcome read(std::string& line) override {
    line.clear();
    std::strcpy(prompt_, "> ");
    do {
      el_set(editor_, EL_PREP_TERM, 1);  // before the prompt invites keys, not after
      int count = 0;
      errno = 0;
      const char* part = el_gets(editor_, &count);
      if (part == nullptr || count <= 0) {
        if (count < 0 && errno == EINTR) {
          std::cerr << "\n";
          el_reset(editor_);
          return Outcome::kInterrupted;
        }
        return line.empty() ? Outcome::kEnd : Outcome::kLine;
      }
      line.append(part, static_cast<size_t>(count));
      while (!line.empty() && (line.back() == '\n' || line.back() == '\r')) line.pop_back();
      std::strcpy(prompt_, ". ");
    } while (goes_on(line));
    remember(line);
    return Outcome::kLine;
  }
  bool terminal() const override { return true; }

 private:
  void remember(const std::string& line) {
    if (line.find_first_not_of(" \t\n") == std::string::npos) return;
    HistEvent event;
    history(history_, &event, H_ENTER, line.c_str());
    if (history_file_.empty()) return;
    std::error_code ignored;
    std::filesystem::create_directories(std::filesystem::path(history_file_).parent_path(), ignored);
    const mode_t before = umask(077);  // what people typed is theirs
    history(history_, &event, H_SAVE, history_file_.c_str());
    umask(before);
  }

  const std::string history_file_;
  EditLine* editor_ = nullptr;
  History* history_ = nullptr;
  char prompt_[4] = "> ";
};

}  // namespace

std::unique_ptr<LineReader> make_line_reader(const std::string& history_file) {
  if (isatty(STDIN_FILENO) && isatty(STDERR_FILENO)) return std::make_unique<EditingReader>(history_file);
  return std::make_unique<PlainReader>();
}

std::string default_history_file() {
  if (const char* file = std::getenv("PYRAMIDKV_HISTORY")) return file;
  const char* state = std::getenv("XDG_STATE_HOME");
  if (state != nullptr && *state != '\0') return std::string(state) + "/pyramidkv/chat_history";
  const char* home = std::getenv("HOME");
  if (home == nullptr || *home == '\0') return "";
  return std::string(home) + "/.local/state/pyramidkv/chat_history";
}

}  // namespace pkv::client
