#include "client/sizes.h"

#include <cmath>
#include <string_view>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace pkv::client {
namespace {

constexpr std::string_view kLetters = "kmgt";

// Bytes of a unit in lower case: "b", "k", "kib", "kb", ...; 0 for none.
double unit_bytes(std::string_view unit) {
  if (unit == "b") return 1;
  const size_t power = unit.empty() ? std::string_view::npos : kLetters.find(unit.front());
  if (power == std::string_view::npos) return 0;
  const std::string_view rest = unit.substr(1);
  if (rest.empty() || rest == "ib") return std::ldexp(1.0, 10 * static_cast<int>(power + 1));
  return rest == "b" ? std::pow(10.0, 3 * static_cast<double>(power + 1)) : 0;
}

}  // namespace

const char* const kSizeForms = "4096B, 512KiB or 512k, 4MiB or 4M, 2GiB or 2G; kB, MB and GB are powers of ten";

std::optional<uint64_t> parse_bytes(const std::string& text, bool bare_number) {
  constexpr double kLargest = 9e18;  // below 2^63
  const std::string lower = absl::AsciiStrToLower(absl::StripAsciiWhitespace(text));
  const size_t unit_begin = lower.find_last_not_of("bkmgti") + 1;
  const std::string word = lower.substr(unit_begin);
  const double unit = word.empty() && bare_number ? 1 : unit_bytes(word);
  double number = 0;
  if (unit == 0 || !absl::SimpleAtod(absl::StripAsciiWhitespace(lower.substr(0, unit_begin)), &number))
    return std::nullopt;
  if (!(number >= 0) || !(number * unit <= kLargest)) return std::nullopt;
  return static_cast<uint64_t>(number * unit);
}

std::string size_word(uint64_t bytes) {
  constexpr std::pair<const char*, uint64_t> kUnits[] = {
      {"GiB", uint64_t{1} << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}};
  for (const auto& [unit, size] : kUnits) {
    if (bytes > 0 && bytes % size == 0) return absl::StrCat(bytes / size, unit);
  }
  return absl::StrCat(bytes, "B");
}

std::string size_word_above(uint64_t bytes) { return absl::StrCat((bytes + 1023) / 1024, "KiB"); }

}  // namespace pkv::client
