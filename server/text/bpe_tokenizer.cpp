// Byte-level BPE (tokenizer.ggml.model = gpt2; Radford et al. 2019, section 2.2): pieces of the text, as bytes, merged
// by rank.
#include <array>
#include <limits>
#include <utility>

#include "absl/status/status.h"
#include "kernels/status_macros.h"
#include "server/model/errors.h"
#include "server/text/cancelled.h"
#include "server/text/pair_merger.h"
#include "server/text/pre_tokenizer.h"
#include "server/text/utf8.h"
#include "server/text/vocabulary_tokenizer.h"

namespace pkv {
namespace {

constexpr std::string_view kMergesKey = "tokenizer.ggml.merges";
constexpr std::string_view kPreKey = "tokenizer.ggml.pre";
constexpr TokenId kNoToken = -1;

struct RankedMerge {
  uint32_t rank = 0;
  TokenId id = 0;
};

// Of two tokens' ids.
uint64_t pair_key(TokenId left, TokenId right) {
  return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
}

// GPT-2's encoder.py writes a byte as one printable character: itself where it is printable Latin-1 other than space
// and soft hyphen, else the next unused of U+0100...
class ByteAlphabet {
 public:
  ByteAlphabet() {
    bytes_.fill(-1);
    uint16_t next = 0x100;
    for (int byte = 0; byte < 256; ++byte) {
      const bool printable = (byte > 0x20 && byte < 0x7F) || (byte > 0xA0 && byte != 0xAD);
      bytes_[printable ? byte : next++] = static_cast<int16_t>(byte);
    }
  }

  // The bytes a token's text stands for; the text itself where it is not written in this alphabet.
  std::string decode(const std::string& text) const {
    std::string out;
    for (size_t at = 0; at < text.size();) {
      const auto lead = static_cast<uint8_t>(text[at]);
      const Utf8Step step = next_utf8(std::string_view(text).substr(at));
      if (step.kind != Utf8Kind::kCharacter || step.bytes > 2) return text;
      const size_t code = step.bytes == 1 ? lead : (lead & 0x1Fu) << 6 | (static_cast<uint8_t>(text[at + 1]) & 0x3Fu);
      if (code >= bytes_.size() || bytes_[code] < 0) return text;
      out += static_cast<char>(bytes_[code]);
      at += step.bytes;
    }
    return out;
  }

 private:
  std::array<int16_t, 0x144> bytes_;  // by code point; the last used one is U+0143
};

class BpeTokenizer final : public VocabularyTokenizer {
 public:
  using Merges = absl::flat_hash_map<uint64_t, RankedMerge>;

  struct Parts {
    Vocabulary vocabulary;
    std::vector<std::string> bytes;
    Merges merges;
    PreTokenizer pre_tokenizer;
    bool whole_pieces;
  };

  explicit BpeTokenizer(Parts parts)
      : VocabularyTokenizer(std::move(parts.vocabulary), std::move(parts.bytes)),
        merges_(std::move(parts.merges)),
        pre_tokenizer_(std::move(parts.pre_tokenizer)),
        whole_pieces_(parts.whole_pieces) {
    byte_ids_.fill(kNoToken);
    for (TokenId id = 0; id < vocab_size(); ++id) {
      if (vocabulary().types[id] != TokenType::kNormal) continue;
      const std::string_view spelled = token_bytes(id);
      ordinary_ids_.try_emplace(spelled, id);
      if (spelled.size() == 1 && byte_ids_[static_cast<uint8_t>(spelled[0])] == kNoToken) {
        byte_ids_[static_cast<uint8_t>(spelled[0])] = id;
      }
    }
  }

 private:
  bool adds_leading_space() const override { return false; }

  absl::Status encode_run(std::string_view run, uint32_t begin, const std::stop_token& stop,
                          EncodedText& out) const override {
    std::vector<std::string_view> pieces;
    PKV_RETURN_IF_ERROR(pre_tokenizer_.split(run, stop, pieces));
    PairMerger<uint32_t> merger;
    std::vector<Symbol> symbols;
    auto find = [this](const Symbol& left, const Symbol& right) -> std::optional<PairMerger<uint32_t>::Merge> {
      const auto merge = merges_.find(pair_key(left.id, right.id));
      if (merge == merges_.end()) return std::nullopt;
      return PairMerger<uint32_t>::Merge{merge->second.rank, merge->second.id};
    };
    uint32_t piece_begin = begin;
    for (const std::string_view piece : pieces) {
      symbols.clear();
      if (whole_pieces_) {
        const auto token = ordinary_ids_.find(piece);
        if (token != ordinary_ids_.end()) symbols.push_back({.begin = 0, .bytes = 1, .id = token->second});
      }
      if (symbols.empty()) {
        PKV_RETURN_IF_ERROR(append_bytes(piece, stop, symbols));
        PKV_RETURN_IF_ERROR(merger.run(symbols, find, stop));
      }
      for (const Symbol& symbol : symbols) {
        if (stop.stop_requested()) return cancelled_by_caller();
        out.ids.push_back(symbol.id);
        out.begins.push_back(piece_begin + symbol.begin);
      }
      piece_begin += static_cast<uint32_t>(piece.size());
    }
    return absl::OkStatus();
  }

  // Vocabularies trained on text may lack rare bytes (SmolLM2: 21, such as U+0004). As in the reference implementation
  // they vanish, and their neighbours meet.
  absl::Status append_bytes(std::string_view piece, const std::stop_token& stop, std::vector<Symbol>& symbols) const {
    for (size_t i = 0; i < piece.size(); ++i) {
      if (stop.stop_requested()) return cancelled_by_caller();
      const TokenId id = byte_ids_[static_cast<uint8_t>(piece[i])];
      if (id != kNoToken) symbols.push_back({.begin = static_cast<uint32_t>(i), .bytes = 1, .id = id});
    }
    return absl::OkStatus();
  }

  Merges merges_;
  PreTokenizer pre_tokenizer_;
  bool whole_pieces_;
  std::array<TokenId, 256> byte_ids_;
  TextMap<TokenId> ordinary_ids_;
};

absl::StatusOr<BpeTokenizer::Merges> load_merges(const GgufFile& file, const Vocabulary& vocabulary) {
  PKV_ASSIGN_OR_RETURN(const auto lines, file.strings(kMergesKey));
  TextMap<TokenId> ids;
  ids.reserve(vocabulary.texts.size());
  for (TokenId id = 0; id < vocabulary.size(); ++id) {
    if (vocabulary.types[id] == TokenType::kNormal) ids.try_emplace(vocabulary.texts[id], id);
  }
  BpeTokenizer::Merges merges;
  merges.reserve(lines.size());
  for (size_t rank = 0; rank < lines.size(); ++rank) {
    const std::string_view line = lines[rank];
    const size_t space = line.find(' ', 1);
    if (space == std::string_view::npos) {
      return invalid_argument(kMergesKey, "[", rank, "]: not two tokens");
    }
    std::array<std::string, 3> names = {std::string(line.substr(0, space)), std::string(line.substr(space + 1)), ""};
    names[2] = names[0] + names[1];
    std::array<TokenId, 3> found = {};
    for (size_t i = 0; i < names.size(); ++i) {
      const auto token = ids.find(names[i]);
      if (token == ids.end()) {
        return invalid_argument(kMergesKey, "[", rank, "]: no token '", names[i], "' in the vocabulary");
      }
      found[i] = token->second;
    }
    merges.try_emplace(pair_key(found[0], found[1]), RankedMerge{static_cast<uint32_t>(rank), found[2]});
  }
  return merges;
}

std::string supported_names() {
  std::string names;
  for (const PreTokenizerSpec& spec : pre_tokenizer_table()) names.append(names.empty() ? "" : ", ").append(spec.name);
  return names;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> load_bpe_tokenizer(const GgufFile& file) {
  PKV_ASSIGN_OR_RETURN(const auto name, file.string(kPreKey));
  const PreTokenizerSpec* spec = find_pre_tokenizer(name);
  if (spec == nullptr) {
    return unimplemented(kPreKey, ": pre-tokeniser '", name, "' is not supported (", supported_names(), ")");
  }
  PKV_ASSIGN_OR_RETURN(auto vocabulary, load_vocabulary(file, spec->add_bos));
  PKV_ASSIGN_OR_RETURN(auto merges, load_merges(file, vocabulary));
  PKV_ASSIGN_OR_RETURN(auto pre_tokenizer, PreTokenizer::create(*spec));

  const ByteAlphabet alphabet;
  std::vector<std::string> bytes;
  bytes.reserve(vocabulary.texts.size());
  for (TokenId id = 0; id < vocabulary.size(); ++id) {
    const std::string& text = vocabulary.texts[id];
    const TokenType type = vocabulary.types[id];
    bytes.push_back(type == TokenType::kNormal || type == TokenType::kUnused ? alphabet.decode(text) : text);
  }
  return std::make_unique<BpeTokenizer>(BpeTokenizer::Parts{.vocabulary = std::move(vocabulary),
                                                            .bytes = std::move(bytes),
                                                            .merges = std::move(merges),
                                                            .pre_tokenizer = std::move(pre_tokenizer),
                                                            .whole_pieces = spec->whole_pieces});
}

}  // namespace pkv
