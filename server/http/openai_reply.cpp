#include "server/http/openai_reply.h"

#include <cmath>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "server/http/report_json.h"
#include "server/telemetry/utf8.h"

namespace pkv {
namespace {

namespace pb = ::pyramidkv::v1;

std::string as_event(const std::string& json) { return absl::StrCat("data: ", json, "\n\n"); }

const char* finish_reason(const RequestResult& result) {
  return result.finish_reason == FinishReason::kStop ? "stop" : "length";
}

Json usage_of(const RequestResult& result) {
  return {{"prompt_tokens", result.prompt_tokens},
          {"completion_tokens", result.completion_tokens},
          {"total_tokens", result.prompt_tokens + result.completion_tokens}};
}

// What the contract says beyond OpenAI's fields; the seed as it was given.
std::string with_report(std::string json, const AnswerEnding& ending, bool negative_seed) {
  const uint64_t seed = ending.request.sampling.seed;
  json = with_member(std::move(json), "seed",
                     negative_seed ? absl::StrCat(static_cast<int64_t>(seed)) : absl::StrCat(seed));
  pb::Timings timings;
  set_timings(ending.result.timings, timings);
  json = with_member(std::move(json), "timings", message_json(timings));
  if (ending.report == ReportDetail::kNone) return json;
  return with_member(std::move(json), "cache", report_json(ending.result.cache, ending.request.policy, ending.report));
}

// Characters that begin in `bytes`.
size_t characters(std::string_view bytes) {
  size_t count = 0;
  for (const char c : bytes) count += (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  return count;
}

// Of a token in a list by names, which has to tell parts of characters apart: as OpenAI's API writes them.
std::string token_name(std::string_view bytes) {
  if (!find_invalid_utf8(bytes)) return std::string(bytes);
  return absl::StrCat("bytes:", absl::CHexEscape({bytes.data(), bytes.size()}));
}

}  // namespace

Json OpenAiReply::frame(bool chunk) const {
  const char* object = !chat() ? "text_completion" : chunk ? "chat.completion.chunk" : "chat.completion";
  return {{"id", absl::StrCat(chat() ? "chatcmpl-" : "cmpl-", origin_.request_id)},
          {"object", object},
          {"created", absl::ToUnixSeconds(origin_.created)},
          {"model", origin_.model}};
}

// tokens, token_logprobs, top_logprobs and text_offset, as lists beside each other.
Json OpenAiReply::listed_logprobs(const OutputAssembler::Piece& piece) {
  Json tokens = Json::array(), values = Json::array(), tops = Json::array(), offsets = Json::array();
  for (const TokenLogprob& token : piece.logprobs) {
    const std::string_view text = tokenizer_.token_bytes(token.id);
    // Nothing comes before the prompt's first token.
    const bool unknown = origin_.echo && !std::exchange(listed_, true);
    tokens.push_back(token_name(text));
    values.push_back(unknown ? Json() : Json(token.logprob));
    Json top;
    if (!unknown && !token.top.empty()) {
      top = {{token_name(text), token.logprob}};  // however unlikely it was
      for (const auto& [id, logprob] : token.top) top.emplace(token_name(tokenizer_.token_bytes(id)), logprob);
    }
    tops.push_back(std::move(top));
    offsets.push_back(text_offset_);
    text_offset_ += characters(text);
  }
  return {{"tokens", tokens}, {"token_logprobs", values}, {"top_logprobs", tops}, {"text_offset", offsets}};
}

Json OpenAiReply::chat_logprobs(const OutputAssembler::Piece& piece) const {
  const auto entry = [this](TokenId id, float logprob) -> Json {
    const std::string_view text = tokenizer_.token_bytes(id);
    Json bytes = Json::array();
    for (const char c : text) bytes.push_back(static_cast<unsigned char>(c));
    return {{"token", std::string(text)}, {"logprob", logprob}, {"bytes", bytes}};
  };
  Json content = Json::array();
  for (const TokenLogprob& token : piece.logprobs) {
    Json item = entry(token.id, token.logprob);
    Json& tops = item["top_logprobs"] = Json::array();
    for (const auto& [id, logprob] : token.top) tops.push_back(entry(id, logprob));
    content.push_back(std::move(item));
  }
  return {{"content", content}, {"refusal", nullptr}};
}

Json OpenAiReply::logprobs(const OutputAssembler::Piece& piece) {
  if (!origin_.logprobs) return nullptr;
  return chat() ? chat_logprobs(piece) : listed_logprobs(piece);
}

std::string OpenAiReply::whole(const OutputAssembler::Piece& piece, const AnswerEnding& ending) {
  Json json = frame(/*chunk=*/false);
  Json choice = {{"index", 0}, {"logprobs", logprobs(piece)}, {"finish_reason", finish_reason(ending.result)}};
  if (chat()) {
    choice["message"] = {{"role", "assistant"}, {"content", piece.text}, {"refusal", nullptr}};
  } else {
    choice["text"] = piece.text;
  }
  json["choices"] = Json::array({std::move(choice)});
  json["usage"] = usage_of(ending.result);
  return with_report(json_text(json), ending, answer_.negative_seed);
}

// Where usage is told at the end, everything before says that it is not known yet.
std::string OpenAiReply::event(Json choice, const Json& usage) const {
  Json json = frame(/*chunk=*/true);
  json["choices"] = choice.is_null() ? Json::array() : Json::array({std::move(choice)});
  if (answer_.include_usage) json["usage"] = usage;
  return json_text(json);
}

std::string OpenAiReply::first() {
  if (!chat()) return {};
  return as_event(event({{"index", 0},
                         {"delta", {{"role", "assistant"}, {"content", ""}}},
                         {"logprobs", nullptr},
                         {"finish_reason", nullptr}},
                        nullptr));
}

std::string OpenAiReply::progress(double prefill_done) {
  return absl::StrCat(": ", std::floor(100 * prefill_done), " % of the prompt is read\n\n");
}

std::string OpenAiReply::next(const OutputAssembler::Piece& piece) {
  Json choice = {{"index", 0}, {"logprobs", logprobs(piece)}, {"finish_reason", nullptr}};
  if (chat()) {
    choice["delta"] = {{"content", piece.text}};
  } else {
    choice["text"] = piece.text;
  }
  return as_event(event(std::move(choice), nullptr));
}

std::string OpenAiReply::last(const AnswerEnding& ending) {
  Json choice = {{"index", 0}, {"logprobs", nullptr}, {"finish_reason", finish_reason(ending.result)}};
  if (chat()) {
    choice["delta"] = Json::object();
  } else {
    choice["text"] = "";
  }
  std::string events = as_event(with_report(event(std::move(choice), nullptr), ending, answer_.negative_seed));
  if (answer_.include_usage) events += as_event(event(nullptr, usage_of(ending.result)));
  return events + as_event("[DONE]");
}

}  // namespace pkv
