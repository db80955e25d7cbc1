// /healthz, which is /health too, and /readyz: the same answers on every port that has them.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/http/http_message.h"

namespace pkv {

// OK, or the reason why not in a line: whether the process is alive, and whether it may be sent requests. Called from
// the servers' threads.
struct Probes {
  std::function<absl::Status()> live;
  std::function<absl::Status()> ready;

  // None: `path` is no probe's.
  std::optional<HttpResponse> answer(const std::string& path) const {
    const bool is_live = path == "/healthz" || path == "/health";
    if (!is_live && path != "/readyz") return std::nullopt;
    const absl::Status status = is_live ? live() : ready();
    if (status.ok()) return HttpResponse{.body = "ok\n"};
    return HttpResponse{.status = 503, .body = absl::StrCat(std::string(status.message()), "\n")};
  }
};

}  // namespace pkv
