// Generations that came over HTTP: answered in one piece, or as a stream of server-sent events.
#pragma once

#include <functional>
#include <memory>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "server/api/generation_call.h"
#include "server/http/http_message.h"
#include "server/http/openai_request.h"

namespace pkv {

// Reads the request's body, has it generated and answers. Returns at once. `now`: the clock that a stream's silence is
// measured by.
void start_openai_call(ServerState& state, OpenAiEndpoint endpoint, HttpRequest request,
                       std::shared_ptr<HttpExchange> exchange, std::function<absl::Time()> now = absl::Now);

}  // namespace pkv
