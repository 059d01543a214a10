// A plugin of Haraka that accepts everything.
exports.register = function () {
  for (const hook of ["mail", "rcpt", "queue"]) {
    this.register_hook(hook, "accept");
  }
};

exports.accept = (next) => next(OK);
