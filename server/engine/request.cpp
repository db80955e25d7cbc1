// What a request's fields mean together.
#include "server/engine/request.h"

namespace pkv {

std::vector<TokenId> ending_tokens(const Request& request) {
  std::vector<TokenId> tokens = request.sampling.stop_token_ids;
  if (!request.sampling.ignore_eos) tokens.insert(tokens.end(), request.end_tokens.begin(), request.end_tokens.end());
  return tokens;
}

}  // namespace pkv
