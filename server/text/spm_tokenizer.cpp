// SentencePiece-style BPE (tokenizer.ggml.model = llama; Kudo and Richardson, arXiv 1808.06226): characters merged by
// the score of the resulting piece, bytes for characters the vocabulary lacks.
#include <array>
#include <cmath>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "kernels/status_macros.h"
#include "server/model/errors.h"
#include "server/text/cancelled.h"
#include "server/text/pair_merger.h"
#include "server/text/utf8.h"
#include "server/text/vocabulary_tokenizer.h"

namespace pkv {
namespace {

constexpr std::string_view kScoresKey = "tokenizer.ggml.scores";
constexpr std::string_view kSpace = "\xE2\x96\x81";  // U+2581 stands for a space
constexpr TokenId kNoToken = -1;

std::string replace_all(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  for (size_t at = 0;;) {
    const size_t found = text.find(from, at);
    out += text.substr(at, found - at);
    if (found == std::string_view::npos) return out;
    out += to;
    at = found + from.size();
  }
}

using Merger = PairMerger<float>;
using ByteIds = std::array<TokenId, 256>;

class SpmTokenizer final : public VocabularyTokenizer {
 public:
  struct Parts {
    Vocabulary vocabulary;
    std::vector<std::string> bytes;
    std::vector<float> scores;
    ByteIds byte_ids;
    bool add_space_prefix;
  };

  explicit SpmTokenizer(Parts parts)
      : VocabularyTokenizer(std::move(parts.vocabulary), std::move(parts.bytes)),
        scores_(std::move(parts.scores)),
        byte_ids_(parts.byte_ids),
        add_space_prefix_(parts.add_space_prefix) {
    for (TokenId id = 0; id < vocab_size(); ++id) {
      // As in SentencePiece, text never becomes a control, byte or unknown token by merging.
      switch (vocabulary().types[id]) {
        case TokenType::kNormal:
        case TokenType::kUserDefined:
        case TokenType::kUnused:
          pieces_.try_emplace(vocabulary().texts[id], id);
          break;
        default:
          break;
      }
    }
  }

  bool adds_leading_space() const override { return add_space_prefix_; }

 private:
  // One run, spelled as the vocabulary does.
  struct Spelling {
    std::string text;
    std::vector<uint32_t> origins;  // per byte: the offset of its character in the caller's text
    TextMap<uint32_t> unused;       // an unused piece -> bytes of its left half
    bool after_unknown = false;
  };

  absl::StatusOr<Spelling> spell(std::string_view run, uint32_t begin, const std::stop_token& stop) const {
    Spelling spelling;
    auto append = [&](std::string_view character, size_t origin) {
      spelling.text += character == " " ? kSpace : character;
      spelling.origins.resize(spelling.text.size(), static_cast<uint32_t>(origin));
    };
    if (add_space_prefix_) append(" ", begin);
    for (size_t at = 0; at < run.size();) {
      if (stop.stop_requested()) return cancelled_by_caller();
      const size_t bytes = next_utf8(run.substr(at)).bytes;
      append(run.substr(at, bytes), begin + at);
      at += bytes;
    }
    return spelling;
  }

  absl::Status encode_run(std::string_view run, uint32_t begin, const std::stop_token& stop,
                          EncodedText& out) const override {
    PKV_ASSIGN_OR_RETURN(Spelling spelling, spell(run, begin, stop));
    const std::string_view text = spelling.text;
    std::vector<Symbol> symbols;
    for (size_t at = 0; at < text.size();) {
      if (stop.stop_requested()) return cancelled_by_caller();
      const size_t bytes = next_utf8(text.substr(at)).bytes;
      symbols.push_back({.begin = static_cast<uint32_t>(at), .bytes = static_cast<uint32_t>(bytes), .id = kNoToken});
      at += bytes;
    }
    const auto find = [&](const Symbol& left, const Symbol& right) -> std::optional<Merger::Merge> {
      const std::string_view merged = text.substr(left.begin, left.bytes + right.bytes);
      const auto piece = pieces_.find(merged);
      if (piece == pieces_.end()) return std::nullopt;
      if (vocabulary().types[piece->second] == TokenType::kUnused) spelling.unused.insert_or_assign(merged, left.bytes);
      return Merger::Merge{-scores_[piece->second], piece->second};
    };
    PKV_RETURN_IF_ERROR(Merger().run(symbols, find, stop));
    for (const Symbol& symbol : symbols) {
      if (stop.stop_requested()) return cancelled_by_caller();
      emit(symbol.begin, symbol.bytes, spelling, out);
    }
    return absl::OkStatus();
  }

  void emit(uint32_t begin, uint32_t bytes, Spelling& spelling, EncodedText& out) const {
    const std::string_view text = std::string_view(spelling.text).substr(begin, bytes);
    auto push = [&](TokenId id) {
      out.ids.push_back(id);
      out.begins.push_back(spelling.origins[begin]);
    };
    if (const auto split = spelling.unused.find(text); split != spelling.unused.end()) {
      // Unused pieces only lead to longer ones and do not come out themselves.
      const uint32_t left_bytes = split->second;
      emit(begin, left_bytes, spelling, out);
      emit(begin + left_bytes, bytes - left_bytes, spelling, out);
      return;
    }
    const auto piece = pieces_.find(text);
    const bool unknown = piece == pieces_.end() && byte_ids_[0] == kNoToken;
    if (piece != pieces_.end()) {
      push(piece->second);
    } else if (!unknown) {
      for (const char byte : text) push(byte_ids_[static_cast<uint8_t>(byte)]);
    } else if (!spelling.after_unknown) {
      push(*vocabulary().unknown);  // one for a run of unknown characters
    }
    spelling.after_unknown = unknown;
  }

  std::vector<float> scores_;
  ByteIds byte_ids_;  // all of them or, where the vocabulary has none, kNoToken
  bool add_space_prefix_;
  TextMap<TokenId> pieces_;  // into the vocabulary's texts
};

absl::StatusOr<std::vector<float>> load_scores(const GgufFile& file, const Vocabulary& vocabulary) {
  PKV_ASSIGN_OR_RETURN(auto scores, file.floats(kScoresKey));
  if (scores.size() != vocabulary.texts.size()) {
    return invalid_argument(kScoresKey, ": ", scores.size(), " scores for ", vocabulary.texts.size(), " tokens");
  }
  for (size_t id = 0; id < scores.size(); ++id) {
    if (std::isnan(scores[id])) return invalid_argument(kScoresKey, "[", id, "]: not a number");
  }
  return scores;
}

absl::StatusOr<ByteIds> load_byte_ids(const Vocabulary& vocabulary) {
  TextMap<TokenId> byte_tokens;
  for (TokenId id = 0; id < vocabulary.size(); ++id) {
    if (vocabulary.types[id] == TokenType::kByte) byte_tokens.try_emplace(vocabulary.texts[id], id);
  }
  ByteIds ids;
  ids.fill(kNoToken);
  if (byte_tokens.empty()) {
    if (vocabulary.unknown.has_value()) return ids;
    return invalid_argument(
        "tokenizer.ggml.unknown_token_id: absent, and the vocabulary has no byte tokens for unknown characters");
  }
  for (int byte = 0; byte < 256; ++byte) {
    const std::string text = absl::StrFormat("<0x%02X>", byte);
    const auto token = byte_tokens.find(text);
    if (token == byte_tokens.end()) {
      return invalid_argument("tokenizer.ggml.tokens: no byte token ", text);
    }
    ids[byte] = token->second;
  }
  return ids;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> load_spm_tokenizer(const GgufFile& file) {
  PKV_ASSIGN_OR_RETURN(auto vocabulary, load_vocabulary(file, /*add_bos=*/true));
  PKV_ASSIGN_OR_RETURN(auto scores, load_scores(file, vocabulary));
  PKV_ASSIGN_OR_RETURN(const auto byte_ids, load_byte_ids(vocabulary));
  PKV_ASSIGN_OR_RETURN(const auto add_space_prefix, file.boolean_or("tokenizer.ggml.add_space_prefix", true));

  std::vector<std::string> bytes(vocabulary.texts.size());
  for (TokenId id = 0; id < vocabulary.size(); ++id) {
    const TokenType type = vocabulary.types[id];
    const bool spaced = type == TokenType::kNormal || type == TokenType::kUserDefined || type == TokenType::kUnused;
    bytes[id] = spaced ? replace_all(vocabulary.texts[id], kSpace, " ") : vocabulary.texts[id];
  }
  for (int byte = 0; byte < 256; ++byte) {
    if (byte_ids[byte] != kNoToken) bytes[byte_ids[byte]] = std::string(1, static_cast<char>(byte));
  }
  return std::make_unique<SpmTokenizer>(SpmTokenizer::Parts{.vocabulary = std::move(vocabulary),
                                                            .bytes = std::move(bytes),
                                                            .scores = std::move(scores),
                                                            .byte_ids = byte_ids,
                                                            .add_space_prefix = add_space_prefix});
}

}  // namespace pkv
