// Text between two special tokens becomes tokens as one run, wherever it comes from: pieces and merges may cross from
// the template's text into a content.
#include "server/text/chat_tokens.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "kernels/status_macros.h"
#include "server/text/cancelled.h"

namespace pkv {
namespace {

class ChatWriter {
 public:
  ChatWriter(const Tokenizer& tokenizer, const std::stop_token& stop) : tokenizer_(tokenizer), stop_(stop) {}

  // The template's own text, in which special tokens are parsed.
  absl::Status write_markup(std::string_view text) {
    size_t begin = 0;
    for (size_t at = 0; at < text.size();) {
      if (stop_.stop_requested()) return cancelled_by_caller();
      const auto special = tokenizer_.special_prefix(text.substr(at));
      if (!special.has_value()) {
        ++at;
        continue;
      }
      run_ += text.substr(begin, at - begin);
      PKV_RETURN_IF_ERROR(end_run());
      chat_.token_ids.push_back(special->id);
      at += special->bytes;
      begin = at;
    }
    run_ += text.substr(begin);
    return absl::OkStatus();
  }

  void write_plain(std::string_view text, bool marked) {
    if (marked) {
      if (!marked_.has_value()) marked_ = {run_.size(), 0};
      marked_->second = run_.size() + text.size();
    }
    run_ += text;
  }

  absl::StatusOr<RenderedChat> finish(std::string text) {
    PKV_RETURN_IF_ERROR(end_run());
    chat_.text = std::move(text);
    return std::move(chat_);
  }

 private:
  absl::Status end_run() {
    if (run_.empty()) return absl::OkStatus();
    PKV_ASSIGN_OR_RETURN(const EncodedText encoded,
                         tokenizer_.encode_with_offsets(run_, SpecialTokens::kPlainText, stop_));
    if (marked_.has_value()) mark(encoded.begins);
    chat_.token_ids.insert(chat_.token_ids.end(), encoded.ids.begin(), encoded.ids.end());
    run_.clear();
    marked_.reset();
    return absl::OkStatus();
  }

  // The tokens of the marked bytes, of whose first and last a part may belong to the template.
  void mark(const std::vector<uint32_t>& begins) {
    if (begins.empty()) return;
    const auto [marked_begin, marked_end] = *marked_;
    auto first = std::upper_bound(begins.begin(), begins.end(), marked_begin);
    if (first != begins.begin()) first = std::lower_bound(begins.begin(), first, *(first - 1));
    const auto end = std::lower_bound(first, begins.end(), marked_end);
    const auto base = static_cast<int32_t>(chat_.token_ids.size());
    if (chat_.system_begin == chat_.system_end)
      chat_.system_begin = base + static_cast<int32_t>(first - begins.begin());
    chat_.system_end = base + static_cast<int32_t>(end - begins.begin());
  }

  const Tokenizer& tokenizer_;
  const std::stop_token& stop_;
  RenderedChat chat_;
  std::string run_;
  std::optional<std::pair<size_t, size_t>> marked_;  // bytes of run_
};

}  // namespace

absl::StatusOr<RenderedChat> chat_tokens(const jinja::Text& text, jinja::Source marked, const Tokenizer& tokenizer,
                                         const std::stop_token& stop) {
  ChatWriter writer(tokenizer, stop);
  for (const jinja::Piece& piece : text.pieces()) {
    if (piece.source == jinja::kTemplate) {
      PKV_RETURN_IF_ERROR(writer.write_markup(piece.text));
    } else {
      writer.write_plain(piece.text, piece.source == marked);
    }
  }
  return writer.finish(text.bytes());
}

}  // namespace pkv
