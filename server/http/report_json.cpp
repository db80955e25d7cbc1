#include "server/http/report_json.h"

#include <algorithm>
#include <span>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "pyramidkv/v1/cache.pb.h"
#include "server/http/json_text.h"

namespace pkv {
namespace {

void add_heads(const LayerOutcome& layer, std::string& json) {
  for (size_t head = 0; head < layer.kept_positions.size(); ++head) {
    std::span<const int32_t> last;
    if (head < layer.final_positions.size()) last = layer.final_positions[head];
    absl::StrAppend(&json, head > 0 ? "," : "", "{\"kv_head\":", head, ",\"positions\":[",
                    absl::StrJoin(layer.kept_positions[head], ","), "],\"final_positions\":[", absl::StrJoin(last, ","),
                    "]}");
  }
}

// `json` has an empty list of heads for every layer. Quotes within a text are escaped, so nothing else looks like one.
std::string with_positions(std::string_view json, const CacheReport& report) {
  constexpr std::string_view kNoHeads = "\"heads\":[]";
  std::string whole;
  for (const LayerOutcome& layer : report.layers) {
    const size_t inside = json.find(kNoHeads) + kNoHeads.size() - 1;
    whole += json.substr(0, inside);
    add_heads(layer, whole);
    json.remove_prefix(inside);
  }
  return whole.append(json);
}

}  // namespace

std::string report_json(const CacheReport& report, const PolicySpec& spec, ReportDetail detail) {
  pyramidkv::v1::CacheReport message;
  set_report(report, spec, std::min(detail, ReportDetail::kPerLayer), message);
  std::string json = message_json(message);
  return detail == ReportDetail::kPositions ? with_positions(json, report) : json;
}

}  // namespace pkv
