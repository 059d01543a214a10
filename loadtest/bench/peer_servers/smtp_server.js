// nodemailer's smtp-server, with handlers that accept everything: node smtp_server.js PORT
const { SMTPServer } = require("smtp-server");

new SMTPServer({
  authOptional: true,
  disabledCommands: ["AUTH", "STARTTLS"],
  disableReverseLookup: true,
  logger: false,
  size: 64 << 20,
  onConnect: (session, done) => done(),
  onMailFrom: (address, session, done) => done(),
  onRcptTo: (address, session, done) => done(),
  onData(stream, session, done) {
    stream.on("end", done);
    stream.resume();
  },
}).listen(Number(process.argv[2]), "127.0.0.1");
