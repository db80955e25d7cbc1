// What a request's fields mean together.
#include "server/engine/request.h"

namespace pkv {

std::unordered_set<TokenId> ending_tokens(const Request& request) {
  const std::vector<TokenId>& wished = request.sampling.stop_token_ids;
  std::unordered_set<TokenId> tokens(wished.begin(), wished.end());
  if (!request.sampling.ignore_eos) tokens.insert(request.end_tokens.begin(), request.end_tokens.end());
  return tokens;
}

}  // namespace pkv
