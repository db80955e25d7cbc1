// Tells model files apart at little cost.
#pragma once

#include <string>

#include "server/model/gguf.h"

namespace pkv {

// 16 hexadecimal digits of the name, type, dimensions and a piece of the data of every tensor: the same for copies of a
// file, another one for other weights, also of a model of the same shape. No protection against forgery.
std::string model_fingerprint(const GgufFile& file);

}  // namespace pkv
