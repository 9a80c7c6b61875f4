from twisted.application.service import ServiceMaker

everything = ServiceMaker(
    "towerbus",
    "towerbus.tap",
    "Real-time event broadcast: WebSocket, HTTP and an embedded log in one process",
    "towerbus",
)

server = ServiceMaker(
    "towerbus-server",
    "towerbus.server_tap",
    "The server: WebSocket and HTTP for clients; needs RabbitMQ and a towerbus-worker",
    "towerbus-server",
)

worker = ServiceMaker(
    "towerbus-worker",
    "towerbus.worker_tap",
    "The worker: orders the events that come through RabbitMQ into the log; needs RabbitMQ",
    "towerbus-worker",
)

bridge = ServiceMaker(
    "towerbus-bridge",
    "towerbus.bridge_tap",
    "Bridges: carry messages of foreign systems onto the bus, and events of the bus to foreign systems",
    "towerbus-bridge",
)
