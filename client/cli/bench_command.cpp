// `pyramidkv bench`: checks everything, runs the load, prints what was measured.
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <fstream>
#include <iostream>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "client/bench/progress.h"
#include "client/bench/report.h"
#include "client/cli/bench_setup.h"
#include "client/cli/command_support.h"
#include "client/cli/commands.h"

namespace pkv::client {
namespace {

constexpr int kInterrupted = 130;  // as shells report it

// A signal handler can reach nothing that is not static.
std::atomic<bool> stop_asked{false};
static_assert(std::atomic<bool>::is_always_lock_free);

// The first Ctrl-C or SIGTERM ends the load, the second the program.
void stop_at_signal() {
  struct sigaction action = {};
  action.sa_handler = [](int) { stop_asked = true; };
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

int read_trace(const BenchPlan& plan, std::vector<TraceLine>& trace, std::vector<BenchPolicy>& mix) {
  if (plan.trace.empty()) return kGood;
  std::string text;
  if (!read_all(plan.trace, text)) return usage_error(absl::StrCat("--trace: cannot read ", plan.trace));
  if (std::string error = parse_trace(text, trace, mix); !error.empty())
    return usage_error(absl::StrCat("--trace: ", plan.trace, ": ", error));
  return kGood;
}

// The default policy of a trace that names one in every line is asked for by nobody.
std::vector<BenchPolicy> asked_for(const std::vector<TraceLine>& trace, const std::vector<BenchPolicy>& mix,
                                   size_t drawn) {
  const bool all_named =
      !trace.empty() && std::all_of(trace.begin(), trace.end(), [](const TraceLine& line) { return line.policy; });
  return {mix.begin() + static_cast<std::ptrdiff_t>(all_named ? drawn : 0), mix.end()};
}

int write_report(const BenchReport& report, const std::string& json) {
  if (json == "-") {
    std::cout << bench_json(report);
    return kGood;
  }
  std::cout << bench_table(report);
  if (json.empty()) return kGood;
  if (!write_all(json, bench_json(report))) return usage_error(absl::StrCat("--json: cannot write ", json));
  std::cerr << "wrote " << json << "\n";
  return kGood;
}

int exit_code(const BenchOptions& options, const BenchRecord& record, bool interrupted) {
  if (interrupted) return kInterrupted;
  if (!record.any_completed()) return kRpcError;
  return options.fail_on_error && record.any_unanswered() ? kRpcError : kGood;
}

}  // namespace

int run_bench(Client& client, const BenchOptions& options) {
  BenchPlan plan;
  if (std::string error = plan_bench(options, plan); !error.empty()) return usage_error(error);
  std::vector<TraceLine> trace;
  std::vector<BenchPolicy> mix = plan.policies;
  if (const int code = read_trace(plan, trace, mix); code != kGood) return code;
  // Found out before the load, and what is in the file stays until there is a report.
  if (!options.json.empty() && options.json != "-" && !std::ofstream(options.json, std::ios::app))
    return usage_error(absl::StrCat("--json: cannot write ", options.json));
  BenchServer server;
  PromptPool pool;
  BenchRunner::Stubs stubs;
  if (const int code = find_model(client, plan, server); code != kGood) return code;
  if (const int code = check_policies(client, plan, asked_for(trace, mix, plan.policies.size()), server); code != kGood)
    return code;
  if (const int code = load_prompts(client, plan, server, pool); code != kGood) return code;
  if (const int code = open_channels(client, plan, stubs); code != kGood) return code;

  stop_at_signal();
  const std::string started_at = absl::FormatTime(absl::RFC3339_sec, absl::Now(), absl::UTCTimeZone());
  const BenchRequests requests(plan, pool, trace, mix, plan.policies.size());
  BenchRecord record(mix.size(), {.ttft = plan.ttft_limit, .itl = plan.itl_limit});
  double seconds = 0;
  bool interrupted = false;
  {
    BenchProgress progress(isatty(STDERR_FILENO));
    BenchRunner runner(plan, trace, requests, stubs, record, stop_asked,
                       [&](const BenchState& state) { progress.show(state); });
    runner.run();
    seconds = runner.measured_seconds();
    interrupted = runner.interrupted();
  }
  const BenchReport report{.plan = plan,
                           .mix = mix,
                           .record = record,
                           .target = client.target(),
                           .model = server.model.id(),
                           .server_version = server.version,
                           .started_at = started_at,
                           .seconds = seconds,
                           .interrupted = interrupted};
  if (const int code = write_report(report, options.json); code != kGood) return code;
  return exit_code(options, record, interrupted);
}

}  // namespace pkv::client
