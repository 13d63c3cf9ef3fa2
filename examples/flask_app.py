"""A Flask app that refunds once, even if the button is pressed twice: `flask --app examples/flask_app run`."""

from flask import Flask, jsonify
from flask.typing import ResponseReturnValue

from verity import LeaseConflictError, SyncVerityClient

app = Flask(__name__)
verity = SyncVerityClient(base_url="sqlite:///verity-example.db", namespace="payments")


@app.post("/orders/<order_id>/refund")
def refund(order_id: str) -> ResponseReturnValue:
    try:
        result = verity.protect(f"refund:{order_id}", act=lambda: {"refund_id": f"re_{order_id}"})
    except LeaseConflictError:
        return jsonify(error="in progress, try again"), 409
    return jsonify(result)
