// Every complaint names the option, what was given and the forms that are right.
#include "client/bench/options.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace pkv::client {
namespace {

constexpr double kLeastRate = 0.001, kLargestRate = 100'000, kLeastSpeed = 0.001, kLargestSpeed = 1e6;
constexpr double kLeastSeconds = 1e-6, kLargestSeconds = 1e6;
constexpr uint64_t kMostRequests = 1'000'000'000;
constexpr uint32_t kMostInFlight = 100'000, kMostChannels = 1024;

std::string complaint(const char* option, const std::string& word, const std::string& forms) {
  return absl::StrCat(option, ": '", word, "' is not ", forms);
}

bool within(absl::string_view word, double least, double largest, double& number) {
  return absl::SimpleAtod(word, &number) && number >= least && number <= largest;
}

// A number of seconds over 0; unset where the word is empty.
std::string read_seconds(const char* option, const std::string& word, std::optional<double>& seconds) {
  double number = 0;
  if (word.empty()) return "";
  if (!within(word, kLeastSeconds, kLargestSeconds, number))
    return complaint(option, word, "a number of seconds over 0 (30 or 0.5)");
  seconds = number;
  return "";
}

template <typename T>
std::string read_count(const char* option, const std::string& word, T least, T most, T& count) {
  T number = 0;
  if (!absl::SimpleAtoi(word, &number) || number < least || number > most)
    return complaint(option, word, absl::StrCat("a whole number from ", least, " to ", most));
  count = number;
  return "";
}

// "4", or "1:8" for a rate that changes.
std::string read_rate(const std::string& word, ArrivalPlan& plan) {
  const std::vector<std::string> ends = absl::StrSplit(word, ':');
  if (ends.size() > 2 || !within(ends.front(), kLeastRate, kLargestRate, plan.rate_from) ||
      !within(ends.back(), kLeastRate, kLargestRate, plan.rate_to)) {
    return complaint("--rate", word,
                     absl::StrCat("requests a second (4 or 0.5, from ", kLeastRate, " to ", kLargestRate,
                                  ") or a ramp FROM:TO (1:8)"));
  }
  return "";
}

std::string read_warmup(const std::string& word, Warmup& warmup) {
  absl::string_view rest = word;
  if (absl::ConsumeSuffix(&rest, "req")) {
    if (absl::SimpleAtoi(rest, &warmup.requests) && warmup.requests <= kMostRequests) return "";
  } else if (absl::SimpleAtod(rest, &warmup.seconds) && warmup.seconds >= 0 && warmup.seconds <= kLargestSeconds) {
    return "";
  }
  return complaint("--warmup", word, "a number of seconds (10) or of requests (20req)");
}

std::string read_load(const BenchOptions& options, BenchPlan& plan) {
  const int ways = !options.rate.empty() + !options.concurrency.empty() + !options.trace.empty();
  if (ways != 1) {
    return absl::StrCat(ways == 0 ? "what load? " : "",
                        "give one of --rate R (open loop), --concurrency N (closed loop) and --trace FILE");
  }
  if (std::string error = read_seconds("--duration", options.duration, plan.duration); !error.empty()) return error;
  if (!options.requests.empty()) {
    std::string error = read_count<uint64_t>("--requests", options.requests, 1, kMostRequests, plan.requests.emplace());
    if (!error.empty()) return error;
  }
  if (options.trace.empty() && !plan.duration && !plan.requests)
    return "how long? give --duration SECONDS, --requests N or both: the first that is reached ends the load";
  if (std::string error = read_warmup(options.warmup, plan.warmup); !error.empty()) return error;
  if (!within(options.speed, kLeastSpeed, kLargestSpeed, plan.speed))
    return complaint("--speed", options.speed, "a factor from 0.001 (2: twice as fast)");
  plan.trace = options.trace;
  if (options.spacing != "poisson" && options.spacing != "constant")
    return complaint("--spacing", options.spacing, "poisson or constant");
  if (!options.concurrency.empty()) {
    return read_count<uint32_t>("--concurrency", options.concurrency, 1, kMostInFlight, plan.concurrency.emplace());
  }
  if (options.rate.empty()) return "";
  plan.arrivals = {.poisson = options.spacing == "poisson",
                   .warmup = plan.warmup,
                   .seconds = plan.duration,
                   .requests = plan.requests,
                   .seed = plan.seed};
  return read_rate(options.rate, *plan.arrivals);
}

std::string read_prompts(const BenchOptions& options, BenchPlan& plan) {
  if (std::string error = LengthDistribution::parse(options.prompt_tokens, plan.prompt_tokens); !error.empty())
    return absl::StrCat("--prompt-tokens: ", error);
  if (std::string error = LengthDistribution::parse(options.max_tokens, plan.max_tokens); !error.empty())
    return absl::StrCat("--max-tokens: ", error);
  if (options.prompt_token_ids != "text" && options.prompt_token_ids != "random")
    return complaint("--prompt-token-ids", options.prompt_token_ids, "text or random");
  plan.random_prompts = options.prompt_token_ids == "random";
  if (plan.random_prompts && !options.prompt_file.empty())
    return "--prompt-file and --prompt-token-ids random exclude each other";
  plan.prompt_file = options.prompt_file;
  plan.service_config_file = options.service_config;
  plan.model = options.model;
  plan.ignore_eos = options.ignore_eos;
  return "";
}

std::string read_calls(const BenchOptions& options, BenchPlan& plan) {
  std::string error = read_count<uint32_t>("--channels", options.channels, 1, kMostChannels, plan.channels);
  if (error.empty())
    error = read_count<uint32_t>("--max-in-flight", options.max_in_flight, 1, kMostInFlight, plan.max_in_flight);
  if (error.empty()) error = read_seconds("--timeout", options.timeout, plan.timeout);
  if (error.empty()) error = read_seconds("--ttft-limit", options.ttft_limit, plan.ttft_limit);
  if (error.empty()) error = read_seconds("--itl-limit", options.itl_limit, plan.itl_limit);
  return error;
}

void note_words(const BenchOptions& options, BenchPlan& plan) {
  plan.words = {{"rate", options.rate},
                {"concurrency", options.concurrency},
                {"trace", options.trace},
                {"speed", options.speed},
                {"spacing", options.spacing},
                {"duration", options.duration},
                {"requests", options.requests},
                {"warmup", options.warmup},
                {"policies", options.policies},
                {"prompt_tokens", options.prompt_tokens},
                {"max_tokens", options.max_tokens},
                {"prompt_file", options.prompt_file},
                {"prompt_token_ids", options.prompt_token_ids},
                {"model", options.model},
                {"ignore_eos", options.ignore_eos ? "true" : "false"},
                {"channels", options.channels},
                {"max_in_flight", options.max_in_flight},
                {"timeout", options.timeout},
                {"service_config", options.service_config},
                {"ttft_limit", options.ttft_limit},
                {"itl_limit", options.itl_limit},
                {"seed", options.seed}};
}

}  // namespace

std::string parse_mix(const std::string& list, std::vector<BenchPolicy>& mix) {
  if (list.empty()) {
    mix.push_back({.text = "default"});
    return "";
  }
  for (const absl::string_view part : absl::StrSplit(list, ',')) {
    const std::vector<absl::string_view> words =
        absl::StrSplit(absl::StripAsciiWhitespace(part), absl::MaxSplits('@', 1));
    BenchPolicy policy{.text = std::string(words[0])};
    std::vector<NamedPolicy> named;
    if (std::string error = parse_policies(policy.text, {}, named); !error.empty()) return error;
    policy.policy = std::move(named.front().policy);
    if (words.size() == 2 && (!absl::SimpleAtoi(words[1], &policy.weight) || policy.weight < 1 ||
                              policy.weight > WeightedChoice::kLargestWeight)) {
      return absl::StrCat("--policies: '", std::string(part), "': the weight behind @ is not a whole number from 1 to ",
                          WeightedChoice::kLargestWeight);
    }
    for (const BenchPolicy& other : mix) {
      if (other.text == policy.text)
        return absl::StrCat("--policies: '", policy.text, "' is there twice; a weight is written ", policy.text, "@2");
    }
    mix.push_back(std::move(policy));
  }
  if (mix.size() > kMostBenchPolicies) return absl::StrCat("--policies: more than ", kMostBenchPolicies);
  return "";
}

std::string plan_bench(const BenchOptions& options, BenchPlan& plan) {
  std::string error = read_count<uint64_t>("--seed", options.seed, 0, UINT64_MAX, plan.seed);
  if (error.empty()) error = read_load(options, plan);
  if (error.empty()) error = parse_mix(options.policies, plan.policies);
  if (error.empty()) error = read_prompts(options, plan);
  if (error.empty()) error = read_calls(options, plan);
  plan.max_in_flight = std::max(plan.max_in_flight, plan.concurrency.value_or(0));
  note_words(options, plan);
  return error;
}

}  // namespace pkv::client
