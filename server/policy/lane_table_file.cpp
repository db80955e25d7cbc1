// The text form of a lane table: words and numbers, line by line. A line that begins with # says something to people.
//
//   pyramidkv-lane-table 1
//   model 2f0c9be1d1e08c35
//   layers 30
//   kv_heads 3
//   keep 0.03125        and so again for every anchor:
//   0.5 1.25 1          one line a layer, one number a KV head
#include <algorithm>
#include <fstream>
#include <iterator>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "kernels/status_macros.h"
#include "server/policy/lane_table.h"

namespace pkv {
namespace {

constexpr std::string_view kFirstLine = "pyramidkv-lane-table 1";
// Larger than the table of any model, and small enough to be read at once.
constexpr size_t kMaxBytes = size_t{16} << 20;
constexpr int32_t kMaxLanes = 1 << 16;
constexpr double kMaxShare = 1e6;

class Lines {
 public:
  explicit Lines(std::string_view text) : rest_(absl::StrSplit(std::string(text), '\n')) {}

  // The next line that says something to programs; false at the end.
  bool next() {
    while (++at_ <= rest_.size()) {
      line_ = rest_[at_ - 1];
      if (!line_.empty() && line_.back() == '\r') line_.pop_back();
      if (!line_.empty() && line_.front() != '#') return true;
    }
    return false;
  }
  const std::string& line() const { return line_; }
  absl::Status error(std::string_view what) const {
    return absl::InvalidArgumentError(absl::StrCat("line ", std::min(at_, rest_.size()), ": ", std::string(what)));
  }
  // What follows `word` on the next line.
  absl::StatusOr<std::string> value(std::string_view word) {
    const std::string prefix = std::string(word) + " ";
    if (!next() || !line_.starts_with(prefix)) return error(absl::StrCat("should be '", std::string(word), " ...'"));
    return line_.substr(prefix.size());
  }
  absl::StatusOr<int32_t> count(std::string_view word) {
    PKV_ASSIGN_OR_RETURN(const std::string text, value(word));
    int32_t number = 0;
    if (absl::SimpleAtoi(text, &number) && number >= 1 && number <= kMaxLanes) return number;
    return error(absl::StrCat(std::string(word), " must be from 1 to ", kMaxLanes));
  }

 private:
  std::vector<std::string> rest_;
  std::string line_;
  size_t at_ = 0;
};

absl::Status read_shares(Lines& lines, int32_t layers, int32_t kv_heads, std::vector<double>& shares) {
  for (int32_t layer = 0; layer < layers; ++layer) {
    if (!lines.next()) return lines.error("the shares end before the last layer");
    const std::vector<std::string> words = absl::StrSplit(lines.line(), ' ', absl::SkipEmpty());
    if (words.size() != static_cast<size_t>(kv_heads)) {
      return lines.error(absl::StrCat("a layer has ", kv_heads, " shares, one for each KV head"));
    }
    for (const std::string& word : words) {
      double share = 0;
      if (!absl::SimpleAtod(word, &share) || !(share >= 0 && share <= kMaxShare)) {
        return lines.error(absl::StrCat("a share is a number from 0 to ", kMaxShare));
      }
      shares.push_back(share);
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<LaneTable> parse_lane_table(std::string_view text) {
  Lines lines(text);
  if (!lines.next() || lines.line() != kFirstLine) {
    return lines.error(absl::StrCat("is no lane table: it should be '", std::string(kFirstLine), "'"));
  }
  LaneTable table;
  PKV_ASSIGN_OR_RETURN(table.model, lines.value("model"));
  PKV_ASSIGN_OR_RETURN(table.layers, lines.count("layers"));
  PKV_ASSIGN_OR_RETURN(table.kv_heads, lines.count("kv_heads"));
  if (int64_t{table.layers} * table.kv_heads > kMaxLanes) return lines.error("too many lanes");
  while (lines.next()) {
    LaneTable::Anchor anchor;
    const std::vector<std::string> words = absl::StrSplit(lines.line(), ' ');
    if (words.size() != 2 || words[0] != "keep" || !absl::SimpleAtod(words[1], &anchor.keep) ||
        !(anchor.keep > 0 && anchor.keep <= 1)) {
      return lines.error("should be 'keep' and a share of the tokens, above 0 and at most 1");
    }
    if (!table.anchors.empty() && anchor.keep <= table.anchors.back().keep) return lines.error("keep has to ascend");
    PKV_RETURN_IF_ERROR(read_shares(lines, table.layers, table.kv_heads, anchor.shares));
    table.anchors.push_back(std::move(anchor));
  }
  if (table.anchors.empty()) return lines.error("has no 'keep ...'");
  return table;
}

std::string format_lane_table(const LaneTable& table) {
  std::string text = absl::StrCat(std::string(kFirstLine), "\nmodel ", table.model, "\nlayers ", table.layers,
                                  "\nkv_heads ", table.kv_heads, "\n");
  for (const LaneTable::Anchor& anchor : table.anchors) {
    absl::StrAppend(&text, "keep ", anchor.keep, "\n");
    for (size_t first = 0; first < anchor.shares.size(); first += static_cast<size_t>(table.kv_heads)) {
      const auto begin = anchor.shares.begin() + static_cast<std::ptrdiff_t>(first);
      absl::StrAppend(&text, absl::StrJoin(begin, begin + table.kv_heads, " "), "\n");
    }
  }
  return text;
}

absl::StatusOr<LaneTable> read_lane_table(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text(kMaxBytes + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  if (!file.is_open() || file.bad()) return absl::NotFoundError(absl::StrCat(path, ": cannot be read"));
  if (text.size() > kMaxBytes) return absl::InvalidArgumentError(absl::StrCat(path, ": is too large for a lane table"));
  absl::StatusOr<LaneTable> table = parse_lane_table(text);
  if (table.ok()) return table;
  return absl::Status(table.status().code(), absl::StrCat(path, ": ", std::string(table.status().message())));
}

}  // namespace pkv
