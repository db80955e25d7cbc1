// Everything that belongs to one model, in the order it is made and, backwards, taken down: backend, file, weights,
// tokenizer, engine.
#pragma once

#include <functional>
#include <memory>
#include <stop_token>
#include <string>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "server/api/server_state.h"
#include "server/config/config.h"
#include "server/engine/engine.h"
#include "server/model/gguf.h"
#include "server/model/model.h"
#include "server/policy/lane_table.h"
#include "server/text/chat_template.h"
#include "server/text/tokenizer.h"

namespace pkv {

using BackendMaker = std::function<absl::StatusOr<std::unique_ptr<Backend>>(const BackendOptions&)>;

class LoadedModel {
 public:
  // Loads config.model.path on the device that `make_backend` makes and starts its engine. `table`, what is in force of
  // model.lane_table or null, has to be of this model. Errors name the file or the key. CANCELLED soon after
  // `loading.stop` is requested: between two tensors, and between two of the other parts.
  static absl::StatusOr<std::unique_ptr<LoadedModel>> load(const Config& config, const LaneTable* table,
                                                           const BackendMaker& make_backend, const Loading& loading);

  const ServedModel& served() const { return served_; }
  const Backend& backend() const { return *backend_; }
  Engine& engine() const { return *engine_; }

 private:
  LoadedModel() = default;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<GgufFile> file_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<ChatTemplate> chat_template_;
  std::unique_ptr<Engine> engine_;
  ServedModel served_;
};

// How the backend of a configuration is made.
BackendOptions backend_options(const RuntimeConfig& config);
// Bytes of a page: the configuration's, or the backend's choice.
int32_t cache_page_bytes(const CacheConfig& config, const Backend& backend);

// SHA-256 of a file, lower-case hexadecimal. NOT_FOUND where it cannot be read, CANCELLED soon after `stop` is
// requested.
absl::StatusOr<std::string> file_sha256(const std::string& path, const std::stop_token& stop = {});

}  // namespace pkv
