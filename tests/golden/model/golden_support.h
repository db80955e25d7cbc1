// What the golden tests share: the model that PKV_MODEL names on a backend, the values committed for it in
// PKV_GOLDEN_DIR, requests to an engine, comparisons.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "server/engine/engine.h"
#include "server/model/model.h"
#include "server/policy/lane_table.h"
#include "tests/support/collecting_sink.h"

namespace pkv::golden {

inline constexpr double kLogitTolerance = 1e-3;  // float32 with another order of summation
inline constexpr double kNearTie = 5e-3;         // best two logits this close: either may win

// One backend with the model on it. PKV_ISA caps the instruction-set path, to try the lower ones of this machine.
struct Loaded {
  std::unique_ptr<GgufFile> file;
  std::unique_ptr<Backend> backend;
  std::unique_ptr<Model> model;
};

Loaded load(const BackendOptions& options);
Loaded load(std::unique_ptr<Backend> backend);
const Loaded& exact();  // every product in float32
const Loaded& fast();   // as served

// The model's lane table (config/lane_tables).
std::shared_ptr<const LaneTable> lane_table();

// A file of the model's folder. See make_model_cases.py for what is in it.
nlohmann::json values(const std::string& file);
std::vector<TokenId> prompt_tokens(const std::string& name);
// The policy that a kept_ or total_ file describes, with float32 entries.
PolicySpec policy_of(const nlohmann::json& values);

std::unique_ptr<Engine> make_engine(const Loaded& loaded, uint64_t pool_bytes = uint64_t{1} << 30);
// Greedy, with log-probabilities and kept positions.
std::shared_ptr<Request> make_request(std::vector<TokenId> prompt, const PolicySpec& policy, int32_t max_tokens);
std::shared_ptr<Request> make_request(const std::string& prompt, const PolicySpec& policy, int32_t max_tokens);
std::shared_ptr<CollectingSink> submit(Engine& engine, std::shared_ptr<Request> request);
std::shared_ptr<CollectingSink> answer(Engine& engine, std::shared_ptr<Request> request);

double log_sum_exp(std::span<const float> logits);
// Log-probability of the prompt's tokens (with nll_rows: of the last ones), logits and a decode step as full.json has
// them under `name`.
void check_full(const Loaded& loaded, const std::string& name);
using Positions = std::vector<int32_t>;
// How many entries were exchanged, or are there beyond the other's.
size_t difference(const Positions& a, const Positions& b);
// What is kept as in a kept_ file, but for near ties, and its recall [layer][KV head] (null: none). Whether all lanes
// are equal.
bool expect_kept(const std::vector<LayerOutcome>& layers, const nlohmann::json& expected, const nlohmann::json& recall);
// `expected`: rows [token, logit].
void expect_logits(std::span<const float> logits, const nlohmann::json& expected);
// Equal up to the first place where the independent model itself was undecided.
void expect_greedy(const std::vector<TokenId>& ids, const nlohmann::json& expected, const nlohmann::json& margins);

}  // namespace pkv::golden
