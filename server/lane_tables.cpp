// A table is read once for the policies, and judged when the model's file is known.
#include "server/lane_tables.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/model/fingerprint.h"

namespace pkv {

absl::StatusOr<std::shared_ptr<const LaneTable>> configured_lane_table(const Config& config) {
  if (config.model.lane_table.empty()) return nullptr;
  absl::StatusOr<LaneTable> table = read_lane_table(config.model.lane_table);
  if (table.ok()) return std::make_shared<const LaneTable>(*std::move(table));
  return absl::Status(table.status().code(), config.about("model.lane_table", std::string(table.status().message())));
}

absl::Status check_lane_table(const Config& config, const LaneTable& table, const GgufFile& file,
                              const ModelShape& shape) {
  const std::string own = model_fingerprint(file);
  if (table.model == own && table.layers == shape.layers && table.kv_heads == shape.kv_heads) return absl::OkStatus();
  return absl::InvalidArgumentError(config.about(
      "model.lane_table",
      absl::StrCat(config.model.lane_table, " was made for another model (", table.model, ", ", table.layers,
                   " layers of ", table.kv_heads, " KV heads) than ", file.path(), " (", own, ", ", shape.layers,
                   " layers of ", shape.kv_heads, "); name that of the model, or none")));
}

}  // namespace pkv
