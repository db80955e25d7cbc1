// Lays answers out beside each other and puts the figures into words.
#include "client/compare_sides.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "client/compare_table.h"
#include "client/report_table.h"
#include "client/text_table.h"
#include "client/utf8.h"

namespace pkv::client {
namespace {

constexpr size_t kContextBytes = 60;  // of the common beginning that is shown
constexpr size_t kLeastColumn = 28;   // two narrower columns are put one below the other
constexpr char kMark[] = ">>", kBetween[] = " | ";

const std::string& baseline_text(const v1::CompareResponse& reply) {
  return reply.baseline().choices_size() > 0 ? reply.baseline().choices(0).text()
                                             : v1::Choice::default_instance().text();
}

bool begins_character(const std::string& text, size_t at) {
  return at >= text.size() || (static_cast<unsigned char>(text[at]) & 0xC0) != 0x80;
}

size_t characters(absl::string_view text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

// Where the shown part of the common beginning starts: at a word, if one begins in reach.
size_t context_begin(const std::string& text, size_t parting) {
  if (parting <= kContextBytes) return 0;
  size_t begin = parting - kContextBytes;
  if (const size_t space = text.find_first_of(" \n", begin); space != std::string::npos && space + 1 < parting)
    return space + 1;
  while (!begins_character(text, begin)) ++begin;
  return begin;
}

// The answer from `begin` on in lines of a column, the mark where it parts from the other one.
std::vector<std::string> column_lines(const std::string& text, size_t begin, size_t parting, size_t width,
                                      size_t most_bytes) {
  size_t end = std::min(text.size(), parting + most_bytes);
  while (end > parting && !begins_character(text, end)) --end;
  std::string shown = absl::StrCat(text.substr(begin, parting - begin), kMark, text.substr(parting, end - parting));
  if (end == parting) shown += "(ends)";
  if (end < text.size()) absl::StrAppend(&shown, " ... (", characters(absl::string_view(text).substr(end)), " more)");
  std::vector<std::string> lines;
  for (absl::string_view line : absl::StrSplit(shown, '\n')) {
    for (std::string& part : wrapped(one_line(line), width)) lines.push_back(std::move(part));
  }
  return lines;
}

std::string in_two_columns(const std::vector<std::string>& left, const std::vector<std::string>& right, size_t width) {
  std::string text;
  for (size_t i = 0; i < std::max(left.size(), right.size()); ++i) {
    std::string line =
        absl::StrCat("  ", padded(i < left.size() ? left[i] : "", width), kBetween, i < right.size() ? right[i] : "");
    line.erase(line.find_last_not_of(' ') + 1);
    absl::StrAppend(&text, line, "\n");
  }
  return text;
}

std::string indented(const std::string& heading, const std::vector<std::string>& lines) {
  std::string text = absl::StrCat("  ", heading, ":\n");
  for (const std::string& line : lines) absl::StrAppend(&text, "    ", line, "\n");
  return text;
}

std::string parted(const std::string& base_name, const std::string& base, const std::string& name,
                   const v1::Comparison& comparison, size_t width, size_t most_bytes) {
  const size_t parting = common_prefix(base, comparison.text()), begin = context_begin(base, parting);
  std::string text = absl::StrCat(name, " departs at token ", comparison.first_divergence());
  if (begin > 0)
    absl::StrAppend(&text, " (", characters(absl::string_view(base).substr(0, begin)), " characters alike left out)");
  text += ":\n";
  const size_t column = width > 5 ? (width - 5) / 2 : 0;
  const bool beside = column >= kLeastColumn;
  const size_t used = beside ? column : std::max<size_t>(width, kLeastColumn) - 4;
  std::vector<std::string> left = column_lines(base, begin, parting, used, most_bytes);
  std::vector<std::string> right = column_lines(comparison.text(), begin, parting, used, most_bytes);
  if (!beside) return text + indented(base_name, left) + indented(name, right);
  left.insert(left.begin(), wrapped(one_line(base_name), used).front());
  right.insert(right.begin(), wrapped(one_line(name), used).front());
  return text + in_two_columns(left, right, column);
}

double memory(const v1::CacheReport& report) {
  return static_cast<double>(report.allocated_bytes() + report.auxiliary_bytes());
}

struct Verdict {
  std::string name, share;
  int32_t divergence;
  double bytes;
};

std::string departures(const std::vector<Verdict>& list) {
  return absl::StrJoin(list, ", ", [](std::string* out, const Verdict& verdict) {
    absl::StrAppend(out, verdict.name, " departs at token ", verdict.divergence, " (", verdict.share, ")");
  });
}

}  // namespace

size_t common_prefix(const std::string& left, const std::string& right) {
  const size_t most = std::min(left.size(), right.size());
  size_t at = 0;
  while (at < most && left[at] == right[at]) ++at;
  while (at > 0 && !(begins_character(left, at) && begins_character(right, at))) --at;
  return at;
}

std::string compare_sides(const v1::CompareResponse& reply, const std::vector<std::string>& names, size_t width,
                          size_t most_bytes) {
  const std::string& base = baseline_text(reply);
  const std::string base_name = compared_name(reply.baseline().cache(), names, 0);
  std::vector<std::string> alike;
  std::string differences;
  size_t row = 1;
  for (const v1::Comparison& comparison : reply.comparisons()) {
    const std::string name = compared_name(comparison.cache(), names, row++);
    if (comparison.first_divergence() < 0) {
      alike.push_back(name);
    } else {
      absl::StrAppend(&differences, "\n", parted(base_name, base, name, comparison, width, most_bytes));
    }
  }
  std::string text =
      absl::StrCat(base_name, alike.empty() ? "" : absl::StrCat(" and, alike, ", absl::StrJoin(alike, ", ")), ":\n");
  size_t end = std::min(base.size(), most_bytes);
  while (!begins_character(base, end)) --end;
  for (absl::string_view line : absl::StrSplit(absl::string_view(base).substr(0, end), '\n')) {
    for (const std::string& part : wrapped(one_line(line), std::max<size_t>(width, kLeastColumn) - 2))
      absl::StrAppend(&text, "  ", part, "\n");
  }
  if (end < base.size())
    absl::StrAppend(&text, "  ... (", characters(absl::string_view(base).substr(end)), " more; --json has all)\n");
  return text + differences;
}

std::string compare_verdict(const v1::CompareResponse& reply, const std::vector<std::string>& names) {
  const std::string base = compared_name(reply.baseline().cache(), names, 0);
  const double whole = memory(reply.baseline().cache());
  std::vector<Verdict> same, other;
  for (const v1::Comparison& comparison : reply.comparisons()) {
    Verdict verdict{.name = compared_name(comparison.cache(), names, same.size() + other.size() + 1),
                    .share = percent(memory(comparison.cache()), whole),
                    .divergence = comparison.first_divergence(),
                    .bytes = memory(comparison.cache())};
    (verdict.divergence < 0 ? same : other).push_back(std::move(verdict));
  }
  std::stable_sort(same.begin(), same.end(), [](const Verdict& a, const Verdict& b) { return a.bytes < b.bytes; });
  std::stable_sort(other.begin(), other.end(), [](const Verdict& a, const Verdict& b) {
    return std::pair(-a.divergence, a.bytes) < std::pair(-b.divergence, b.bytes);
  });
  if (same.empty() && other.empty()) return "";
  if (same.empty()) {
    const Verdict first = other.front();
    other.erase(other.begin());
    return absl::StrCat(
        reply.comparisons_size() > 1 ? "None gives " : first.name + " does not give ", base, "'s answer: ",
        reply.comparisons_size() > 1 ? first.name + " follows it longest, to token " : "it departs at token ",
        first.divergence, ", with ", first.share, " of its memory", other.empty() ? "" : "; ", departures(other), ".");
  }
  const std::string gives = absl::StrJoin(same, ", ", [&](std::string* out, const Verdict& verdict) {
    absl::StrAppend(out,
                    &verdict == &same.front() ? absl::StrCat(verdict.name, " gives ", base, "'s answer with ")
                                              : absl::StrCat("so does ", verdict.name, " with "),
                    verdict.share, &verdict == &same.front() ? " of its memory" : "");
  });
  return absl::StrCat(gives, other.empty() ? "" : "; ", departures(other), ".");
}

}  // namespace pkv::client
