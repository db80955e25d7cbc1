// Model, policies, prompts and connections of a run.
#include "client/cli/bench_setup.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <iostream>

#include "absl/strings/str_cat.h"
#include "client/bench/json_reader.h"
#include "client/cli/command_support.h"

namespace pkv::client {
namespace {

constexpr char kDefaultText[] = "/usr/share/common-licenses/GPL-3";  // on Debian and Ubuntu
constexpr size_t kMostTextBytes = 1 << 20;
constexpr size_t kPieceBytes = 16 << 10;  // of a Tokenize call
constexpr auto kConnectTimeout = std::chrono::seconds(5);
constexpr int kMaxMessageBytes = 64 << 20;

// Sentences of made-up words, the same for the same seed.
std::string synthetic_text(uint64_t seed) {
  constexpr const char* kSyllables[] = {"ka", "lo", "mi", "ren", "tu", "sa", "bel", "on", "ti", "ver", "da", "ne"};
  constexpr size_t kBytes = 64 << 10;
  WorkloadRandom random(seed, 0);
  std::string text;
  while (text.size() < kBytes) {
    for (int64_t words = random.number(4, 14); words > 0; --words) {
      for (int64_t syllables = random.number(1, 4); syllables > 0; --syllables)
        text += kSyllables[random.number(0, std::size(kSyllables) - 1)];
      text += words > 1 ? " " : ". ";
    }
  }
  return text;
}

// Where a piece of `text` ends: at a line's or word's end where there is one, and never within a character.
size_t piece_end(absl::string_view text) {
  if (text.size() <= kPieceBytes) return text.size();
  const size_t space = text.find_last_of(" \n", kPieceBytes);
  if (space != absl::string_view::npos && space > 0) return space;
  size_t end = kPieceBytes;
  while (end > 1 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  return end;
}

// What the model wants in front of a text: by how much a text is longer with special tokens than without.
int find_prefix(Client& client, const BenchPlan& plan, PromptPool& pool) {
  v1::TokenizeRequest request;
  request.set_model(plan.model);
  request.set_text("a");
  const auto with = client.tokenize(request);
  if (!with) return fail(client, with.error);
  request.set_add_special_tokens(false);
  const auto without = client.tokenize(request);
  if (!without) return fail(client, without.error);
  pool.prefix.assign(with->token_ids().begin(),
                     with->token_ids().begin() + std::max(0, with->token_ids_size() - without->token_ids_size()));
  return kGood;
}

int connect(grpc::Channel& channel, const std::string& target) {
  if (channel.WaitForConnected(std::chrono::system_clock::now() + kConnectTimeout)) return kGood;
  // A call says why.
  const auto stub = v1::StatsService::NewStub(std::shared_ptr<grpc::Channel>(&channel, [](grpc::Channel*) {}));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(1));
  v1::GetStatsResponse reply;
  const grpc::Status status = stub->GetStats(&context, {}, &reply);
  std::cerr << "pyramidkv: no connection to " << target << " in 5 s"
            << (status.ok() ? "" : absl::StrCat(": ", status.error_message())) << "\n";
  return kUnreachable;
}

}  // namespace

int find_model(Client& client, const BenchPlan& plan, BenchServer& server) {
  const auto models = client.list_models();
  if (!models) return fail(client, models.error);
  if (models->models().empty()) {
    std::cerr << "pyramidkv: the server has not loaded its model yet; 'pyramidkv stats' shows its state\n";
    return kRpcError;
  }
  server.model = models->models(0);
  if (!plan.model.empty() && plan.model != server.model.id())
    return usage_error(absl::StrCat("--model: the server has '", server.model.id(), "', not '", plan.model, "'"));
  const auto stats = client.get_stats(false);
  if (!stats) return fail(client, stats.error);
  server.version = stats->stats().version();
  const int64_t longest = plan.prompt_tokens.largest() + plan.max_tokens.largest();
  if (plan.trace.empty() && longest > int64_t{server.model.max_model_len()}) {
    std::cerr << "pyramidkv: --prompt-tokens and --max-tokens allow more than the model's "
              << server.model.max_model_len() << " tokens together; requests over that will be refused\n";
  }
  return kGood;
}

int check_policies(Client& client, const BenchPlan& plan, const std::vector<BenchPolicy>& mix,
                   const BenchServer& server) {
  std::vector<const v1::CachePolicy*> chosen;
  for (const BenchPolicy& policy : mix) chosen.push_back(&policy.policy);
  if (const int code = check_presets(client, chosen); code != kGood) return code;
  const int64_t room = std::max<int64_t>(2, server.model.max_model_len());
  const int64_t prompt = std::min(plan.prompt_tokens.typical(), room - 1);
  v1::EstimateCacheRequest request;
  request.set_prompt_tokens(static_cast<uint32_t>(prompt));
  request.set_max_tokens(static_cast<uint32_t>(std::min(plan.max_tokens.typical(), room - prompt)));
  for (const BenchPolicy& policy : mix) {
    *request.mutable_cache_policy() = policy.policy;
    const auto estimate = client.estimate_cache(request);
    if (!estimate && estimate.error.code == grpc::StatusCode::INVALID_ARGUMENT)
      return usage_error(absl::StrCat("policy '", policy.text, "' is refused: ", estimate.error.describe()));
    if (!estimate) return fail(client, estimate.error);
    if (!estimate->admissible_ever()) {
      std::cerr << "pyramidkv: policy '" << policy.text << "': requests of " << prompt
                << " prompt tokens never fit and will be refused; 'pyramidkv estimate' says what would fit\n";
    }
  }
  return kGood;
}

int load_prompts(Client& client, const BenchPlan& plan, const BenchServer& server, PromptPool& pool) {
  pool.vocab_size = server.model.vocab_size();
  pool.max_model_len = server.model.max_model_len();
  if (plan.random_prompts) return kGood;
  std::string text;
  if (!plan.prompt_file.empty()) {
    if (!read_all(plan.prompt_file, text) || text.empty())
      return usage_error(absl::StrCat("--prompt-file: cannot read ", plan.prompt_file, ", or it is empty"));
  } else if (!read_all(kDefaultText, text) || text.empty()) {
    text = synthetic_text(plan.seed);
  }
  if (const int code = find_prefix(client, plan, pool); code != kGood) return code;
  absl::string_view rest = absl::string_view(text).substr(0, kMostTextBytes);
  while (!rest.empty()) {
    v1::TokenizeRequest request;
    const size_t end = piece_end(rest);
    request.set_model(plan.model);
    request.set_text(std::string(rest.substr(0, end)));
    request.set_add_special_tokens(false);
    rest.remove_prefix(end);
    const auto piece = client.tokenize(request);
    if (!piece) return fail(client, piece.error);
    pool.tokens.insert(pool.tokens.end(), piece->token_ids().begin(), piece->token_ids().end());
  }
  return kGood;
}

int open_channels(const Client& client, const BenchPlan& plan, BenchRunner::Stubs& stubs) {
  std::string service_config;
  if (!plan.service_config_file.empty()) {
    google::protobuf::Struct object;
    if (!read_all(plan.service_config_file, service_config))
      return usage_error(absl::StrCat("--service-config: cannot read ", plan.service_config_file));
    if (std::string error = read_json_object(service_config, object); !error.empty())
      return usage_error(absl::StrCat("--service-config: ", plan.service_config_file, " is no JSON object: ", error));
  }
  for (uint32_t i = 0; i < plan.channels; ++i) {
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // else all channels share one connection
    if (!service_config.empty()) arguments.SetServiceConfigJSON(service_config);
    const auto channel = open_channel(client.target(), client.access(), arguments);
    if (const int code = connect(*channel, client.target()); code != kGood) return code;
    stubs.push_back(v1::GenerationService::NewStub(channel));
  }
  return kGood;
}

}  // namespace pkv::client
