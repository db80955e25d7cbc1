// Cache reports for people: one column per reply, and the shape over the layers.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "pyramidkv/v1/generation.pb.h"

namespace pkv::client {

namespace v1 = ::pyramidkv::v1;

// What a report needs of one reply.
struct ReportColumn {
  std::string title;
  v1::CacheReport cache;
  v1::Usage usage;
  v1::Timings timings;
};

std::string human_bytes(double bytes);
// "12.5 %" of `whole`, "-" where that is nothing.
std::string percent(double part, double whole);
// Bytes that were saved of those of a `full` cache, and their share: "nothing" and "-" where the cache is larger than
// the entries of a full one, which is a matter of pages, "-" and "-" where there is no cache. What people read says it
// like that everywhere; programs get the number.
std::string saved_size(double saved, double full);
std::string saved_share(double saved, double full);
// The figures of one reply: label, text.
std::vector<std::pair<std::string, std::string>> report_figures(const ReportColumn& column);
// Side by side, one row per figure.
std::string report_table(const std::vector<ReportColumn>& columns);
// Entries kept per layer as bars; empty where the report has no layers.
std::string layer_bars(const v1::CacheReport& report);
// What a request would cost and whether it can be admitted; with its budgets per layer as bars where `layers`.
std::string estimate_text(const v1::EstimateCacheResponse& estimate, bool layers);
// Budgets per layer of an estimate as bars.
std::string layer_budgets(const v1::EstimateCacheResponse& estimate);

}  // namespace pkv::client
