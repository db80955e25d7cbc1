#include "tests/fuzz/served_model.h"

#include <memory>
#include <string>
#include <utility>

#include "kernels/check.h"
#include "kernels/plugin_loader.h"
#include "server/loaded_model.h"
#include "tests/support/gguf_writer.h"

namespace pkv::test {
namespace {

struct Served {
  Served() : state(*PolicyCatalog::create({}, KvDtype::kF16), log, /*random_seed=*/7) {
    Config config;
    config.model.path = file.path();
    config.model.id = "tiny";
    config.runtime.device = "reference";
    absl::StatusOr<std::unique_ptr<LoadedModel>> loaded = LoadedModel::load(config, nullptr, make_backend, {});
    PKV_CHECK(loaded.ok(), loaded.status().ToString().c_str());
    model = *std::move(loaded);
    state.publish(&model->served());
  }

  const TempFile file = make_tiny_llama();
  const Log log{"error", "text"};
  std::unique_ptr<LoadedModel> model;
  ServerState state;
};

}  // namespace

ServerState& served_state() {
  static Served served;
  return served.state;
}

}  // namespace pkv::test
