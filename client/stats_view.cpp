// Lays out a server's state, and counts rates from two messages.
#include "client/stats_view.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "client/report_table.h"

namespace pkv::client {
namespace {

constexpr char kRed[] = "31", kGreen[] = "32", kYellow[] = "33", kBold[] = "1", kFaint[] = "2";

// A line that ends where the terminal does. Colours take no place.
class Line {
 public:
  explicit Line(const ViewStyle& style) : color_(style.color), left_(static_cast<size_t>(std::max(style.width, 0))) {}

  Line& add(absl::string_view text, const char* color = nullptr) {
    text = text.substr(0, left_);
    left_ -= text.size();
    if (color_ && color != nullptr && !text.empty()) {
      absl::StrAppend(&text_, "\x1b[", color, "m", text, "\x1b[0m");
    } else {
      absl::StrAppend(&text_, text);
    }
    return *this;
  }
  size_t left() const { return left_; }
  const std::string& text() const { return text_; }

 private:
  const bool color_;
  size_t left_;
  std::string text_;
};

double seconds(const google::protobuf::Duration& duration) {
  return static_cast<double>(duration.seconds()) + duration.nanos() * 1e-9;
}

uint64_t ended(const v1::TotalStats& totals) {
  uint64_t sum = 0;
  for (const auto& [code, count] : totals.requests_by_code()) sum += count;
  return sum;
}

// What happened between two messages, by their uptimes: the engine's own time stands still while nothing runs.
struct Rates {
  double generated = 0, read = 0, requests = 0;
};

std::optional<Rates> rates(const v1::Stats* previous, const v1::Stats& now) {
  if (previous == nullptr) return std::nullopt;
  const double passed = seconds(now.uptime()) - seconds(previous->uptime());
  if (passed <= 0) return std::nullopt;  // another server by now
  const auto rate = [&](uint64_t before, uint64_t after) {
    return after > before ? static_cast<double>(after - before) / passed : 0.0;
  };
  const v1::TotalStats &before = previous->totals(), &after = now.totals();
  return Rates{.generated = rate(before.generation_tokens(), after.generation_tokens()),
               .read = rate(before.prompt_tokens(), after.prompt_tokens()),
               .requests = rate(ended(before), ended(after))};
}

std::string rate_text(const std::optional<Rates>& all, double Rates::*rate, const char* unit) {
  return all ? absl::StrFormat("%.1f %s", *all.*rate, unit) : absl::StrCat("- ", unit);
}

const char* state_color(v1::ServerState state) {
  switch (state) {
    case v1::SERVER_STATE_SERVING:
      return kGreen;
    case v1::SERVER_STATE_FAILED:
      return kRed;
    default:
      return kYellow;
  }
}

std::string pool_legend(const v1::MemoryStats& memory) {
  return absl::StrCat("# live ", human_bytes(memory.kv_live_bytes()), " = reserved ",
                      human_bytes(memory.kv_reserved_bytes()), " . free ", human_bytes(memory.kv_free_bytes()));
}

// Live pages, what is reserved beyond them, and the rest of the pool. What there is of live shows, however little.
std::string pool_line(const v1::MemoryStats& memory, const ViewStyle& style) {
  Line line(style);
  const auto pool = static_cast<double>(memory.kv_pool_bytes());
  line.add(absl::StrFormat("%-10s", "pool")).add("[");
  const std::string share = absl::StrFormat("] %7s of %s", percent(memory.kv_live_bytes(), pool), human_bytes(pool));
  if (line.left() <= share.size()) return line.add("]").text();
  const auto cells = static_cast<int64_t>(line.left() - share.size());
  const auto cells_of = [&](uint64_t bytes) -> int64_t {
    if (pool <= 0 || bytes == 0) return 0;
    return std::clamp<int64_t>(std::llround(static_cast<double>(cells) * static_cast<double>(bytes) / pool), 1, cells);
  };
  const int64_t live = cells_of(memory.kv_live_bytes());
  const int64_t reserved = std::max(live, cells_of(memory.kv_reserved_bytes()));
  line.add(std::string(live, '#'), kGreen).add(std::string(reserved - live, '='), kYellow);
  return line.add(std::string(cells - reserved, '.'), kFaint).add(share).text();
}

bool was_used(const v1::PolicyStats& policy) {
  return policy.running() > 0 || policy.requests_total() > 0 || policy.held_bytes() > 0;
}

// Columns that do not fit are left out whole, the last first.
struct Columns {
  bool share = false, done = false, evicted = false;
};

Columns columns_of(int width) { return {.share = width >= 69, .done = width >= 79, .evicted = width >= 94}; }

std::string policy_header(const Columns& columns) {
  std::string text = absl::StrFormat("%-13s %7s %12s %12s %12s", "policy", "running", "held", "full", "saved");
  if (columns.share) absl::StrAppendFormat(&text, " %8s", "share");
  if (columns.done) absl::StrAppendFormat(&text, " %9s", "done");
  if (columns.evicted) absl::StrAppendFormat(&text, " %14s", "evicted");
  return text;
}

std::string policy_row(const v1::PolicyStats& policy, const Columns& columns) {
  const auto saved = static_cast<double>(policy.saved_bytes());
  const auto full = static_cast<double>(policy.full_equivalent_bytes());
  std::string text = absl::StrFormat("%-13s %7u %12s %12s %12s", printable(policy.policy()), policy.running(),
                                     human_bytes(static_cast<double>(policy.held_bytes())), human_bytes(full),
                                     saved_size(saved, full));
  if (columns.share) absl::StrAppendFormat(&text, " %8s", saved_share(saved, full));
  if (columns.done) absl::StrAppendFormat(&text, " %9u", policy.requests_total());
  if (columns.evicted) absl::StrAppendFormat(&text, " %14u", policy.evicted_entries_total());
  return text;
}

void add_policies(const v1::Stats& now, const ViewStyle& style, std::vector<std::string>& lines) {
  const Columns columns = columns_of(style.width);
  lines.emplace_back();
  lines.push_back(Line(style).add(policy_header(columns), kBold).text());
  const size_t header = lines.size();
  for (const v1::PolicyStats& policy : now.policies()) {
    if (was_used(policy)) lines.push_back(Line(style).add(policy_row(policy, columns)).text());
  }
  if (lines.size() == header) lines.push_back(Line(style).add("(no request yet)", kFaint).text());
}

void add_requests(const v1::Stats& now, const ViewStyle& style, std::vector<std::string>& lines) {
  if (now.requests().empty()) return;
  lines.emplace_back();
  lines.push_back(Line(style)
                      .add(absl::StrFormat("%-7s %-13s %7s %9s %12s %8s  %s", "phase", "policy", "prompt", "generated",
                                           "held", "age", "request"),
                           kBold)
                      .text());
  for (const v1::RequestStats& request : now.requests()) {
    lines.push_back(Line(style)
                        .add(absl::StrFormat("%-7s %-13s %7u %9u %12s %6.1f s  %s", printable(request.phase()),
                                             printable(request.policy()), request.prompt_tokens(),
                                             request.generated_tokens(), human_bytes(request.held_bytes()),
                                             seconds(request.age()), printable(request.request_id())))
                        .text());
  }
}

}  // namespace

std::vector<std::string> stats_view(const v1::Stats* previous, const v1::Stats& now, const ViewStyle& style) {
  const v1::MemoryStats& memory = now.memory();
  const std::optional<Rates> rate = rates(previous, now);
  const auto line = [&](const char* label, const std::string& text) {
    return Line(style).add(absl::StrFormat("%-10s", label)).add(text).text();
  };
  std::vector<std::string> lines;
  lines.push_back(Line(style)
                      .add(absl::StrCat("pyramidkv-server ", printable(now.version()), "  "))
                      .add(state_word(now.state()), state_color(now.state()))
                      .add(absl::StrCat("  up ", absl::FormatDuration(absl::Seconds(now.uptime().seconds()))))
                      .text());
  lines.push_back(pool_line(memory, style));
  lines.push_back(Line(style).add(pool_legend(memory), kFaint).text());
  lines.push_back(
      line("requests", absl::StrFormat("%u running, %u waiting, %u ended, %u refused", now.scheduler().running(),
                                       now.scheduler().waiting(), ended(now.totals()), now.totals().rejected())));
  lines.push_back(line("rates", absl::StrCat(rate_text(rate, &Rates::generated, "tok/s"), ", ",
                                             rate_text(rate, &Rates::read, "prompt tok/s"), ", ",
                                             rate_text(rate, &Rates::requests, "requests/s"))));
  const auto saved = static_cast<double>(memory.kv_saved_bytes());
  const auto full = static_cast<double>(memory.kv_full_equivalent_bytes());
  const std::string whole = full > 0 ? absl::StrCat(" of ", human_bytes(full), " in full caches") : "";
  const std::string share = saved > 0 ? absl::StrCat(": ", saved_share(saved, full)) : "";
  lines.push_back(line("saved", absl::StrCat(saved_size(saved, full), whole, share)));
  add_policies(now, style, lines);
  add_requests(now, style, lines);
  return lines;
}

std::string stats_line(const v1::Stats* previous, const v1::Stats& now) {
  const v1::MemoryStats& memory = now.memory();
  const Rates rate = rates(previous, now).value_or(Rates{});
  return absl::StrFormat(
      "uptime_seconds=%.1f state=%s running=%u waiting=%u pool_bytes=%u live_bytes=%u reserved_bytes=%u free_bytes=%u "
      "held_bytes=%u full_equivalent_bytes=%u saved_bytes=%d generated_tokens=%u generated_tokens_per_second=%.1f "
      "prompt_tokens=%u prompt_tokens_per_second=%.1f requests=%u requests_per_second=%.1f rejected=%u",
      seconds(now.uptime()), state_word(now.state()), now.scheduler().running(), now.scheduler().waiting(),
      memory.kv_pool_bytes(), memory.kv_live_bytes(), memory.kv_reserved_bytes(), memory.kv_free_bytes(),
      memory.kv_held_bytes(), memory.kv_full_equivalent_bytes(), memory.kv_saved_bytes(),
      now.totals().generation_tokens(), rate.generated, now.totals().prompt_tokens(), rate.read, ended(now.totals()),
      rate.requests, now.totals().rejected());
}

std::string device_memory_line(const v1::DeviceMemoryStats& device) {
  const std::pair<const char*, uint64_t> parts[] = {
      {"weights", device.weights_bytes()},    {"live cache", device.kv_live_bytes()},
      {"free cache", device.kv_free_bytes()}, {"workspace", device.workspace_bytes()},
      {"steps", device.step_bytes()},         {"other", device.other_bytes()},
      {"idle", device.idle_bytes()}};
  uint64_t sum = 0;
  for (const auto& [name, bytes] : parts) sum += bytes;
  std::string text = absl::StrCat("device memory ", human_bytes(sum), ":");
  for (const auto& [name, bytes] : parts) {
    absl::StrAppend(&text, name == parts[0].first ? " " : ", ", name, " ", human_bytes(bytes));
  }
  return absl::StrCat(text, "; pinned on the host ", human_bytes(device.staging_bytes()));
}

std::string state_word(v1::ServerState state) {
  const std::string name = v1::ServerState_Name(state);
  return name.empty() ? "UNKNOWN" : std::string(absl::StripPrefix(name, "SERVER_STATE_"));
}

std::string printable(const std::string& text) {
  std::string result;
  for (const char byte : text) {
    if (byte >= ' ' && byte <= '~') {
      result += byte;
    } else {
      absl::StrAppendFormat(&result, "\\x%02X", static_cast<unsigned char>(byte));
    }
  }
  return result;
}

}  // namespace pkv::client
