// The text of every token of a prompt, which the server gives only for whole lists of tokens: they are asked for with a
// separator between them. Tokens that are parts of one character are put together.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "client/client.h"

namespace pkv::client {

// Text of a list of token ids; nothing where it cannot be had.
using Detokenize = std::function<std::optional<std::string>(const std::vector<uint32_t>& ids)>;

// The separator: a control character that has its own token in every vocabulary of bytes.
inline constexpr char kTokenSeparator = '\x1e';

// One text per id. The first of several tokens that make one character has the character, the others nothing. Asks
// twice at most. Empty where the texts cannot be told apart, because another token has the separator in it.
std::vector<std::string> token_texts(const std::vector<uint32_t>& ids, uint32_t separator,
                                     const Detokenize& detokenize);

// The bytes of tokens, put together in the same way.
std::vector<std::string> whole_characters(std::vector<std::string> bytes);

// What the server makes of the request's prompt, before it is cut to truncate_prompt_tokens.
v1::TokenizeRequest tokenize_request(const v1::GenerateRequest& request);

// Token texts of the request's prompt as it is used, from the server; empty, with the reason in `why`, where they
// cannot be had.
std::vector<std::string> fetch_token_texts(Client& client, const v1::GenerateRequest& request, std::string& why);

}  // namespace pkv::client
