#include "server/api/gate.h"

#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/status_macros.h"
#include "server/api/engine_errors.h"
#include "server/api/errors.h"
#include "server/api/job_claim.h"
#include "server/engine/engine.h"

namespace pkv {
namespace {

constexpr uint64_t kLargeMessage = 256 << 10;  // whose text is tokenised in more than an eighth of a second

}  // namespace

absl::StatusOr<WaitingRoom::Place> enter(ServerState& state, uint64_t bytes, const std::string& owner) {
  PKV_ASSIGN_OR_RETURN(const ServedModel* served, state.find_model(""));
  if (const Engine::State engine = served->engine->state(); engine != Engine::State::kServing) {
    return submit_error(absl::UnavailableError(engine == Engine::State::kFailed ? "the engine has failed"
                                                                                : "the server is shutting down"),
                        engine);
  }
  std::optional<WaitingRoom::Place> place = state.waiting().enter(bytes, owner);
  if (!place) return queue_full(state);
  return *std::move(place);
}

absl::StatusOr<WaitingRoom::Place> admit_call(ServerState& state, uint64_t bytes, CallInfo& info) {
  PKV_RETURN_IF_ERROR(state.authenticator().admit(info.credentials, KeyScope::kGenerate, info.key));
  PKV_ASSIGN_OR_RETURN(WaitingRoom::Place place, enter(state, bytes, owner_of(info.key.get())));
  info.listed = std::make_shared<CallRegistry::Entry>(
      state.calls(), CallRegistry::Row{.method = info.method, .peer = info.peer, .bytes = bytes});
  return place;
}

absl::Status post_preparation(ServerState& state, uint64_t bytes, const CallInfo& info, WorkerPool::Task task) {
  WorkerPool& pool = bytes > kLargeMessage ? state.large_preparation() : state.preparation();
  const bool posted = pool.post(std::move(task), owner_of(info.key.get()));
  return posted ? absl::OkStatus() : queue_full(state);
}

absl::Status queue_full(const ServerState& state) {
  return make_error({.reason = kQueueFull,
                     .description = absl::StrCat("the queue is full: at most ", state.limits()->max_waiting,
                                                 " requests may wait (scheduler.max_waiting), of at most ",
                                                 state.limits()->max_waiting_bytes,
                                                 " bytes together (server.max_waiting_bytes), and of one key as many "
                                                 "as there are places left; try again later"),
                     .retry_delay = kQueueRetryDelay});
}

absl::Status queue_full_of_tokens(const ServerState& state, uint64_t tokens) {
  const uint64_t max = state.limits()->max_waiting_tokens;
  return make_error(
      {.reason = kQueueFull,
       .description = absl::StrCat("the queue is full: prompts that wait may have ", max,
                                   " tokens together (scheduler.max_waiting_tokens), and of one key as many as are "
                                   "left; this one has ",
                                   tokens, "; try again later, or send a shorter prompt (truncate_prompt_tokens)"),
       .metadata = {{"max", std::to_string(max)}, {"got", std::to_string(tokens)}},
       .retry_delay = kQueueRetryDelay});
}

}  // namespace pkv
