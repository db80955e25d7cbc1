#include "server/config_check.h"

#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "kernels/status_macros.h"
#include "server/cache/kv_cache.h"
#include "server/lane_tables.h"
#include "server/loaded_model.h"
#include "server/model/gguf.h"
#include "server/model/hyperparameters.h"

namespace pkv {
namespace {

absl::Status refuse(const Config& config, std::string_view key, const absl::Status& why, std::string_view way_out) {
  return absl::InvalidArgumentError(
      config.about(key, absl::StrCat(std::string(why.message()), "; ", std::string(way_out))));
}

// Whether pool and pages can hold entries of the model's size, by making the cache: memory that is not used costs
// nothing.
absl::Status check_cache(const Config& config, const ModelShape& shape, Backend& backend) {
  const CacheGeometry geometry{.layers = shape.layers,
                               .kv_heads = shape.kv_heads,
                               .head_dim = shape.head_dim,
                               .page_bytes = cache_page_bytes(config.cache, backend)};
  const absl::Status made = KvCache::create(backend, geometry, config.cache.pool_bytes).status();
  if (made.ok()) return made;
  return absl::IsInvalidArgument(made) ? refuse(config, "cache.page_bytes", made, "set larger pages")
                                       : refuse(config, "cache.pool_bytes", made, "set a smaller pool");
}

absl::StatusOr<ModelShape> read_model_shape(const GgufFile& file) {
  PKV_ASSIGN_OR_RETURN(const std::string architecture, file.string("general.architecture"));
  return read_shape(file, architecture);
}

}  // namespace

absl::Status check_on_this_machine(const Config& config) {
  const absl::StatusOr<std::unique_ptr<Backend>> backend = make_backend(backend_options(config.runtime));
  if (!backend.ok()) return refuse(config, "runtime.device", backend.status(), "auto takes what there is");
  PKV_RETURN_IF_ERROR(check_pool(config, cache_page_bytes(config.cache, **backend)));
  if (config.model.path.empty()) return absl::OkStatus();
  constexpr std::string_view kWayOut = "name a GGUF file that this user can read";
  const absl::StatusOr<std::unique_ptr<GgufFile>> file = GgufFile::open(config.model.path);
  if (!file.ok()) return refuse(config, "model.path", file.status(), kWayOut);
  const absl::StatusOr<ModelShape> shape = read_model_shape(**file);
  if (!shape.ok()) return refuse(config, "model.path", shape.status(), kWayOut);
  if (const absl::Status fits = check_attention(*shape, **backend); !fits.ok()) {
    return absl::InvalidArgumentError(config.about("model.path", std::string(fits.message())));
  }
  PKV_ASSIGN_OR_RETURN(const std::shared_ptr<const LaneTable> table, configured_lane_table(config));
  if (table) PKV_RETURN_IF_ERROR(check_lane_table(config, *table, **file, *shape));
  return check_cache(config, *shape, **backend);
}

}  // namespace pkv
