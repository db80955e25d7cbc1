// Texts from files.
#include "tests/bench/texts.h"

#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "server/text/tokenizer.h"

namespace pkv {

absl::StatusOr<std::vector<Text>> read_texts(const std::vector<std::string>& paths, const GgufFile& file) {
  auto tokenizer = load_tokenizer(file);
  if (!tokenizer.ok()) return tokenizer.status();
  std::vector<Text> texts;
  for (const std::string& path : paths) {
    std::ifstream stream(path, std::ios::binary);
    if (!stream) return absl::NotFoundError("cannot read " + path);
    if (absl::EndsWith(path, ".json")) {
      const auto prompts = nlohmann::json::parse(stream, nullptr, /*allow_exceptions=*/false);
      if (!prompts.is_object()) return absl::InvalidArgumentError(path + " is no JSON object {name: [token ids]}");
      for (const auto& [name, ids] : prompts.items()) texts.push_back({name, ids.get<std::vector<int32_t>>()});
      continue;
    }
    auto ids = (*tokenizer)->encode(std::string(std::istreambuf_iterator<char>(stream), {}), SpecialTokens::kParse);
    if (!ids.ok()) return ids.status();
    texts.push_back({path, *std::move(ids)});
  }
  return texts;
}

}  // namespace pkv
