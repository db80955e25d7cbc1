// Requests and answers of HTTP as their handlers see them.
#pragma once

#include <functional>
#include <string>

namespace pkv {

struct HttpRequest {
  std::string method;  // GET, POST, ...; HEAD is told as GET, and no more than the head of respond() is sent
  std::string path;    // without the query
  std::string body;
  std::string peer;  // ADDRESS:PORT
  // Headers; empty: there is none, or more than one.
  std::string authorization;
  std::string request_id;   // X-Request-Id
  std::string traceparent;  // W3C
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "text/plain; charset=utf-8";
  std::string body;
  std::string headers = {};  // further ones, each with its line's end
};

// One request that is being answered: by respond(), or by begin(), any number of write() and end(). Thread-safe. Every
// call's `done` is called once on the server's thread: true when the client's system has it, false when it never will;
// the next call waits for it.
class HttpExchange {
 public:
  using Done = std::function<void(bool sent)>;
  virtual ~HttpExchange() = default;
  virtual void respond(HttpResponse response, Done done) = 0;
  // An answer in parts, of no length that is known. The body is its first part.
  virtual void begin(HttpResponse head, Done done) = 0;
  virtual void write(std::string part, Done done) = 0;
  virtual void end(std::string last_part, Done done) = 0;
  // Called once, on the server's thread, if the client leaves before the answer is complete; at once if it has left.
  virtual void when_gone(std::function<void()> gone) = 0;
};

}  // namespace pkv
