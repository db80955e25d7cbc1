#include "server/loaded_model.h"

#include <algorithm>
#include <filesystem>
#include <functional>
#include <limits>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/plugin_loader.h"
#include "kernels/status_macros.h"
#include "server/lane_tables.h"

namespace pkv {
namespace {

EngineOptions engine_options(const Config& config) {
  return {.pool_bytes = config.cache.pool_bytes,
          .page_bytes = config.cache.page_bytes,
          .max_running = config.scheduler.max_running,
          .max_waiting = std::numeric_limits<int32_t>::max(),  // those who wait have a place, which WaitingRoom bounds
          .step_tokens = config.scheduler.step_tokens,
          .workspace_bytes = config.runtime.workspace_bytes};
}

std::string model_id(const ModelConfig& config) {
  return config.id.empty() ? std::filesystem::path(config.path).stem().string() : config.id;
}

absl::Status about_file(const absl::Status& status, const std::string& path) {
  const std::string message(status.message());
  return message.find(path) != std::string::npos ? status
                                                 : absl::Status(status.code(), absl::StrCat(path, ": ", message));
}

std::vector<size_t> longest_tokens(const Tokenizer& tokenizer) {
  std::vector<size_t> bytes;
  for (TokenId id = 0; id < tokenizer.vocab_size(); ++id) bytes.push_back(tokenizer.token_bytes(id).size());
  std::ranges::sort(bytes, std::greater());
  bytes.resize(std::min<size_t>(bytes.size(), kMaxTopLogprobs));
  return bytes;
}

absl::Status given_up() { return absl::CancelledError("loading was given up"); }

}  // namespace

BackendOptions backend_options(const RuntimeConfig& config) {
  return {.device = config.device == "auto" ? choose_device().device : config.device,
          .exact = config.compute == "float32",
          .fast = config.compute == "fast",
          .threads = config.threads,
          .isa = config.isa == "auto" ? "" : config.isa,
          .graphs = config.graphs};
}

int32_t cache_page_bytes(const CacheConfig& config, const Backend& backend) {
  return config.page_bytes == 0 ? backend.traits().page_bytes : config.page_bytes;
}

absl::StatusOr<std::unique_ptr<LoadedModel>> LoadedModel::load(const Config& config, const LaneTable* table,
                                                               const BackendMaker& make_backend,
                                                               const Loading& loading) {
  const std::string& path = config.model.path;
  std::unique_ptr<LoadedModel> loaded(new LoadedModel());

  PKV_ASSIGN_OR_RETURN(loaded->backend_, make_backend(backend_options(config.runtime)));

  absl::StatusOr<std::unique_ptr<GgufFile>> file = GgufFile::open(path);
  if (!file.ok()) return about_file(file.status(), path);
  loaded->file_ = *std::move(file);

  if (loading.stop.stop_requested()) return given_up();
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = load_tokenizer(*loaded->file_);
  if (!tokenizer.ok()) return about_file(tokenizer.status(), path);
  loaded->tokenizer_ = *std::move(tokenizer);
  absl::StatusOr<std::string> chat_template = loaded->file_->string_or("tokenizer.chat_template", "");
  if (!chat_template.ok()) return about_file(chat_template.status(), path);
  loaded->chat_template_ = std::make_unique<ChatTemplate>(*std::move(chat_template), *loaded->tokenizer_);

  absl::StatusOr<std::unique_ptr<Model>> model = load_model(*loaded->file_, *loaded->backend_, loading);
  if (!model.ok()) return about_file(model.status(), path);
  loaded->model_ = *std::move(model);
  if (table != nullptr) PKV_RETURN_IF_ERROR(check_lane_table(config, *table, *loaded->file_, loaded->model_->shape()));
  PKV_RETURN_IF_ERROR(check_pool(config, cache_page_bytes(config.cache, *loaded->backend_)));
  PKV_ASSIGN_OR_RETURN(loaded->engine_, Engine::create(*loaded->model_, engine_options(config)));
  if (loading.stop.stop_requested()) return given_up();
  loaded->served_ = {.id = model_id(config.model),
                     .device = loaded->backend_->description(),
                     .kv_dtype = config.cache.dtype,
                     .shape = loaded->model_->shape(),
                     .weight_bytes = loaded->model_->resident_bytes(),
                     .tokenizer = loaded->tokenizer_.get(),
                     .chat_template = loaded->chat_template_.get(),
                     .engine = loaded->engine_.get(),
                     .longest_tokens = longest_tokens(*loaded->tokenizer_)};
  return loaded;
}

}  // namespace pkv
